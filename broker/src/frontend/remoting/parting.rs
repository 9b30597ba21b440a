//! How a connection ends when the broker stops: what is decided is written, and the socket is closed in an order in which
//! it arrives. A socket that is closed while something unread lies in it tells the other side to throw away what it has
//! not read yet; so the writing half is closed first, and what still arrives is read and dropped for a moment.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::transport::Transport;

/// Longest time that the other side gets to read the last answers and to close its half.
const LINGER_MAX: Duration = Duration::from_millis(500);
/// A connection on which nothing happened for so long has nothing under way that could be lost.
pub(super) const RECENT: Duration = Duration::from_secs(2);

/// Closes the writing half and waits until the other side has closed its own, at most [`LINGER_MAX`].
pub(super) async fn close(stream: &mut impl Transport) {
    let emptied = async {
        stream.shutdown().await?;
        let mut dropped = [0; 1024];
        while stream.read(&mut dropped).await? > 0 {}
        std::io::Result::Ok(())
    };
    // an error or the end of patience means the same: there is nobody to wait for
    let _ = tokio::time::timeout(LINGER_MAX, emptied).await;
}
