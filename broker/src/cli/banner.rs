//! What `mezzo serve` says when it serves: what runs where, where the data is, when it answers, and what to try next.

use std::path::Path;

use crate::{
    config::{Ack, Config},
    server::Broker,
};

/// The banner, without a trailing line feed.
pub(super) fn banner(config: &Config, broker: &Broker) -> String {
    let dir = std::path::absolute(&config.store.dir).unwrap_or_else(|_| config.store.dir.clone());
    text(
        config,
        &dir,
        &Addresses {
            broker: broker.broker_address().to_string(),
            name_server: broker.name_server_address().to_string(),
            advertised: broker.advertised_address().to_string(),
            metrics: broker.metrics_address().map(|address| address.to_string()),
        },
    )
}

struct Addresses {
    broker: String,
    name_server: String,
    advertised: String,
    metrics: Option<String>,
}

fn text(config: &Config, dir: &Path, addresses: &Addresses) -> String {
    let ack = match config.store.ack {
        Ack::Durable => "durable (answers when it is on the disk)",
        Ack::Memory => "memory (answers before it is on the disk)",
    };
    let advertised = if addresses.advertised == addresses.broker {
        String::new()
    } else {
        format!(", clients are told {}", addresses.advertised)
    };
    let metrics = match &addresses.metrics {
        Some(address) => format!("\x20 metrics      http://{address}/metrics\n"),
        None => String::new(),
    };
    format!(
        "mezzo {version}\n\
         \x20 broker       {broker}{advertised}\n\
         \x20 name server  {name_server}  <- give this one to RocketMQ clients\n\
         {metrics}\x20 data         {dir}\n\
         \x20 ack          {ack}\n\
         \x20 try          {program} send orders 'one coffee' --name-server {name_server}\n\
         \x20 stop         ctrl-C or SIGTERM",
        version = env!("CARGO_PKG_VERSION"),
        program = program(),
        broker = addresses.broker,
        name_server = addresses.name_server,
        dir = dir.display(),
    )
}

/// How this program is called again: by cargo if it was, which then tells it so.
pub(super) fn program() -> &'static str {
    if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "mezzo" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_addresses_data_and_ack_level() {
        let mut addresses = Addresses {
            broker: "127.0.0.1:10911".to_owned(),
            name_server: "127.0.0.1:9876".to_owned(),
            advertised: "127.0.0.1:10911".to_owned(),
            metrics: None,
        };
        let shown = text(&Config::default(), Path::new("/data"), &addresses);
        for part in ["127.0.0.1:10911", "127.0.0.1:9876", "/data", "durable"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("clients are told") && !shown.contains("metrics"));
        addresses.metrics = Some("127.0.0.1:5557".to_owned());
        addresses.advertised = "192.0.2.1:10911".to_owned();
        let shown = text(&Config::default(), Path::new("/data"), &addresses);
        assert!(shown.contains("clients are told 192.0.2.1:10911"));
        assert!(shown.contains("\n  metrics      http://127.0.0.1:5557/metrics\n"), "{shown}");
    }
}
