//! `mezzo serve`: runs a broker until a signal asks it to stop or the disk fails it.

use std::{io::IsTerminal as _, pin::pin, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{banner::banner, exit::Exit, output::conclude};
use crate::{
    config::Config,
    server::{Broker, StartError},
};

/// Time between two signs of life while the data folder is recovered.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Serves with these settings.
pub(super) fn run(config: Config) -> Exit {
    log_to_stderr();
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start a runtime: {error}")),
    };
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Exit {
    // before anything runs: a signal that comes early must not end the process half started
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot listen for signals: {error}")),
    };
    // recovery may take long, and neither a signal nor a person must have to wait for its end to see that it works
    let mut starting = pin!(Broker::start(config.clone()));
    let mut waited = Duration::ZERO;
    let started = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => stopped_early(),
            _ = interrupt.recv() => stopped_early(),
            started = &mut starting => break started,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                waited += PROGRESS_EVERY;
                let dir = config.store.dir.display();
                tracing::info!(%dir, waited_s = waited.as_secs(), "still recovering the data folder");
            }
        }
    };
    let broker = match started {
        Ok(broker) => broker,
        Err(error @ (StartError::Config(_) | StartError::Advertise(_))) => {
            eprintln!("mezzo: {error}");
            return Exit::Usage;
        }
        Err(error) => return failed(&error.to_string()),
    };
    // a reader that is gone is no reason not to serve
    conclude(&banner(&config, &broker));
    until_stopped(broker, terminate, interrupt).await
}

async fn until_stopped(broker: Broker, mut terminate: Signal, mut interrupt: Signal) -> Exit {
    let mut broken = false;
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = broker.fenced() => Some(reason),
        () = broker.broken() => {
            broken = true;
            None
        }
    };
    if let Some(reason) = failure {
        disk_failed(&reason);
    }
    tracing::info!("stopping");
    match broker.shutdown().await {
        Ok(()) if broken => {
            failed("a part of the broker failed (see the log); everything acknowledged is kept, start again")
        }
        Ok(()) => {
            tracing::info!("stopped");
            Exit::Done
        }
        Err(mezzo_storage::StorageError::Fenced { reason }) => disk_failed(&reason),
        Err(error) => failed(&format!("did not stop in order: {error}")),
    }
}

/// Lets this process open as many files as the system allows it at all: what shells and service managers give to begin
/// with is meant for programs that serve few. Whether it is enough is judged when the broker starts.
fn raise_open_files() {
    let limits = rlimit::Resource::NOFILE.get();
    let raised = limits.and_then(|(soft, hard)| {
        if soft < hard {
            rlimit::Resource::NOFILE.set(hard, hard)?;
            tracing::debug!(from = soft, to = hard, "the limit of open files is raised");
        }
        Ok(())
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Nothing was acknowledged yet, and a recovery that is broken off begins anew at the next start.
fn stopped_early() -> ! {
    tracing::info!("stopped before it served");
    std::process::exit(i32::from(Exit::Done.code()))
}

/// The process ends without closing the store: after a failed sync only what the disk has, read again at the next start,
/// can be trusted.
fn disk_failed(reason: &str) -> ! {
    tracing::error!(
        reason,
        "the disk failed; nothing more is acknowledged; restart to recover from what is on the disk"
    );
    std::process::exit(i32::from(Exit::DiskFailed.code()))
}

fn failed(reason: &str) -> Exit {
    eprintln!("mezzo: {reason}");
    Exit::Failed
}

/// Logs go to the standard error, `info` and above unless `RUST_LOG` says otherwise.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // a second subscriber in one process is refused; the first one stays
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
