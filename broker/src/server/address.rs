//! Which address clients are told: what the settings say, or else where the broker listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// Why there is no address to advertise.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The name has no address.
    #[error(
        "server.advertise \"{0}\" cannot be resolved: write HOST or HOST:PORT with a host that this machine can resolve"
    )]
    Unresolved(String),
}

/// The address that stands in routes and message ids. `advertise` is `HOST`, `HOST:PORT` or nothing; a port that is not
/// given is the listener's.
pub(super) fn advertised(advertise: Option<&str>, listening: SocketAddr) -> Result<SocketAddr, AddressError> {
    let Some(text) = advertise else { return Ok(reachable(listening)) };
    let unresolved = || AddressError::Unresolved(text.to_owned());
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, listening.port()));
    }
    let with_port = match text.rsplit_once(':') {
        Some(_) => text.to_owned(),
        None => format!("{text}:{}", listening.port()),
    };
    let mut found: Vec<SocketAddr> = with_port.to_socket_addrs().map_err(|_| unresolved())?.collect();
    // older clients read IPv4 addresses only, so a name that has both kinds stands for the first IPv4 one
    found.sort_by_key(|address| !address.is_ipv4());
    found.first().copied().ok_or_else(unresolved)
}

/// A listener on all addresses is reached by the one that this machine would use to reach others.
fn reachable(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    SocketAddr::new(outgoing().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), listening.port())
}

/// The source address of outgoing packets. Connecting a datagram socket only chooses a route; nothing is sent. The
/// address asked about belongs to a range reserved for documentation.
fn outgoing() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> SocketAddr {
        ([127, 0, 0, 1], 10911).into()
    }

    #[test]
    fn without_a_setting_the_listener_is_advertised() {
        assert_eq!(advertised(None, listening()), Ok(listening()));
    }

    #[test]
    fn a_host_alone_gets_the_listeners_port() {
        assert_eq!(advertised(Some("192.0.2.7"), listening()).unwrap().to_string(), "192.0.2.7:10911");
        assert_eq!(advertised(Some("192.0.2.7:5"), listening()).unwrap().to_string(), "192.0.2.7:5");
        assert_eq!(advertised(Some("[2001:db8::1]:5"), listening()).unwrap().to_string(), "[2001:db8::1]:5");
        assert_eq!(advertised(Some("2001:db8::1"), listening()).unwrap().to_string(), "[2001:db8::1]:10911");
        assert!(advertised(Some("localhost"), listening()).unwrap().ip().is_loopback());
    }

    #[test]
    fn an_unresolvable_name_is_named() {
        let error = advertised(Some("no such host"), listening()).unwrap_err();
        assert!(error.to_string().contains("\"no such host\""), "{error}");
    }

    #[test]
    fn a_listener_on_all_addresses_advertises_one_that_can_be_reached() {
        let address = advertised(None, ([0, 0, 0, 0], 10911).into()).unwrap();
        assert!(!address.ip().is_unspecified());
        assert_eq!(address.port(), 10911);
    }
}
