//! What the log says of connections that the broker closes: whose fault it was, and what to look at. Each kind of line is
//! said at most once in ten seconds, because clients that are set up wrongly come again and again.

use std::{fmt, net::SocketAddr, time::Duration};

use mezzo_protocol::error::DecodeError;

use crate::{metrics::Metrics, service::seldom::Seldom};

/// Bytes of a connection's input that tell who speaks.
pub(super) const FIRST_BYTES: usize = 4;

/// What a peer speaks that does not speak the remoting protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Http2,
    Tls,
    Other,
}

impl Speaks {
    /// By the first bytes of what could not be read as a frame.
    fn of(first: &[u8]) -> Self {
        match first {
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"TRAC" => {
                Self::Http
            }
            b"PRI " => Self::Http2,
            // a handshake record of any version
            [0x16, 0x03, ..] => Self::Tls,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Speaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "it speaks HTTP; this port speaks RocketMQ's remoting protocol",
            Self::Http2 => {
                "it speaks HTTP/2, as gRPC clients do; this port speaks RocketMQ's remoting protocol: use a remoting \
                 client"
            }
            Self::Tls => "it asks for TLS, which this port does not offer: switch it off in the client",
            Self::Other => "what arrived is no frame of RocketMQ's remoting protocol",
        })
    }
}

/// What arrived is no frame; `first` is how it begins.
pub(super) fn malformed(metrics: &Metrics, client: SocketAddr, first: &[u8], error: &DecodeError) {
    static LINES: [Seldom; 4] = [const { Seldom::new() }; 4];
    metrics.malformed_frames.add(1);
    let speaks = Speaks::of(first.get(..FIRST_BYTES).unwrap_or(first));
    let [http, http2, tls, other] = &LINES;
    let line = match speaks {
        Speaks::Http => http,
        Speaks::Http2 => http2,
        Speaks::Tls => tls,
        Speaks::Other => other,
    };
    if let Some(kept_back) = line.may_say() {
        tracing::warn!(%client, %error, kept_back, "connection closed: {speaks}");
    }
}

/// The client does not read its answers: `waited` for one write.
pub(super) fn does_not_read(metrics: &Metrics, client: SocketAddr, waited: Duration) {
    static LINE: Seldom = Seldom::new();
    metrics.slow_clients_closed.add(1);
    if let Some(kept_back) = LINE.may_say() {
        tracing::warn!(
            %client,
            ?waited,
            kept_back,
            "connection closed: the client does not read its answers (limits.write_timeout)"
        );
    }
}

/// More answers wait for the client than may.
pub(super) fn too_many_answers(metrics: &Metrics, client: SocketAddr) {
    static LINE: Seldom = Seldom::new();
    metrics.slow_clients_closed.add(1);
    if let Some(kept_back) = LINE.may_say() {
        tracing::warn!(
            %client,
            kept_back,
            "connection closed: too many answers wait for the client to read them (limits.outbound_frames, \
             limits.outbound_bytes)"
        );
    }
}

/// A request began and did not end in time.
pub(super) fn slow_frame(metrics: &Metrics, client: SocketAddr, waited: Duration) {
    static LINE: Seldom = Seldom::new();
    metrics.slow_frames_closed.add(1);
    if let Some(kept_back) = LINE.may_say() {
        tracing::warn!(
            %client,
            ?waited,
            kept_back,
            "connection closed: a request began and did not arrive in full (limits.frame_timeout)"
        );
    }
}

/// As many connections are open as may be.
pub(super) fn refused(metrics: &Metrics, client: SocketAddr) {
    static LINE: Seldom = Seldom::new();
    metrics.connections_refused.add(1);
    if let Some(kept_back) = LINE.may_say() {
        tracing::warn!(
            %client,
            kept_back,
            "connection refused: as many are open as may be (limits.connections, and the system's limit of open files)"
        );
    }
}

/// The system refuses to accept.
pub(super) fn cannot_accept(error: &std::io::Error) {
    static LINE: Seldom = Seldom::new();
    if let Some(kept_back) = LINE.may_say() {
        tracing::warn!(%error, kept_back, "cannot accept a connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_speaks_is_told_by_its_first_bytes() {
        for (first, speaks) in [
            (&b"GET "[..], Speaks::Http),
            (b"POST", Speaks::Http),
            (b"PRI ", Speaks::Http2),
            (&[0x16, 0x03, 0x01, 0x02], Speaks::Tls),
            (&[0xFF; 4], Speaks::Other),
            (b"", Speaks::Other),
        ] {
            assert_eq!(Speaks::of(first), speaks, "{first:?}");
        }
    }
}
