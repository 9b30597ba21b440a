//! A socket between a producer and its database that does something to the one word COMMIT.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// What happens to a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The connection breaks before the database hears it.
    Before,
    /// The connection breaks when the database has answered, before the producer hears that.
    After,
    /// As [`Cut::After`], but the connection stays, silent.
    Silence,
}

/// A proxy with the sockets' names that the databases' own folders have.
pub(crate) struct CuttingProxy {
    folder: TempDir,
    armed: Arc<AtomicBool>,
    done: Arc<Notify>,
}

impl CuttingProxy {
    /// Stands in front of the sockets in `folder`.
    pub(crate) fn before(folder: &Path, cut: Cut) -> Self {
        let own = TempDir::new().expect("a temporary folder");
        let (armed, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        for name in [".s.PGSQL.5432", "socket"] {
            let server = folder.join(name);
            if !server.exists() {
                continue;
            }
            let listener = UnixListener::bind(own.path().join(name)).expect("a socket can be made");
            let (armed, done) = (Arc::clone(&armed), Arc::clone(&done));
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = UnixStream::connect(&server).await.expect("the server listens");
                    tokio::spawn(relay(client, server, cut, Arc::clone(&armed), Arc::clone(&done)));
                }
            });
        }
        Self { folder: own, armed, done }
    }

    /// The folder to connect to.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The next COMMIT is cut.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until one was.
    pub(crate) async fn cut(&self) {
        self.done.notified().await;
    }
}

async fn relay(
    mut client: UnixStream,
    mut server: UnixStream,
    cut: Cut,
    armed: Arc<AtomicBool>,
    done: Arc<Notify>,
) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let passed_on = tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let sent = &up[..count];
                if says_commit(sent) && armed.swap(false, Ordering::SeqCst) {
                    if cut != Cut::Before {
                        server.write_all(sent).await.expect("the server hears it");
                        // its answer, which nobody else will hear
                        let answered = server.read(&mut down).await;
                        assert!(answered.is_ok_and(|count| count > 0), "the server answers a COMMIT");
                    }
                    done.notify_one();
                    if cut == Cut::Silence {
                        pending::<()>().await;
                    }
                    return;
                }
                server.write_all(sent).await
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                client.write_all(&down[..count]).await
            }
        };
        if passed_on.is_err() {
            return;
        }
    }
}

/// COMMIT as a statement of its own: the end of a packet (MySQL), or before a NUL (PostgreSQL).
fn says_commit(bytes: &[u8]) -> bool {
    bytes.strip_suffix(b"\0").unwrap_or(bytes).ends_with(b"COMMIT")
}
