//! How headers are written: as JSON, which every peer reads, or in RocketMQ's binary form, which is smaller and cheaper
//! but strange to some proxies. A connection begins with JSON and changes when its peer has shown that it reads both:
//!
//! ```text
//!   the peer writes a binary header itself         sure: changes at once
//!   the answer to a heartbeat says so (Mezzo)      sure: changes at once
//!   the answer is of an Apache broker since 4.0    likely: it reads each frame by the frame's own mark, but proxies borrow
//!                                                  its name; a binary heartbeat, sent before anybody else may use the
//!                                                  connection, must be answered first. If it is not, nothing but JSON is
//!                                                  tried at that address any more.
//! ```

use mezzo_protocol::remoting::header::client::HeartbeatReplyHeader;
use mezzo_protocol::remoting::language::LanguageCode;
use mezzo_protocol::remoting::{HeaderView, frame};

/// `MQVersion` of RocketMQ 4.0.0, the first Apache release: it and all later ones read both forms.
const APACHE_VERSION_MIN: i32 = 212;

/// How the headers of requests are written.
///
/// ```
/// use mezzo_client::config::{ClientConfig, HeaderEncoding};
///
/// // A proxy in between reads nothing but JSON.
/// let config = ClientConfig::default().header_encoding(HeaderEncoding::Json);
/// assert_eq!(ClientConfig::default().header_encoding, HeaderEncoding::Auto);
/// # drop(config);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HeaderEncoding {
    /// As JSON, and in the binary form on connections to brokers that show that they read it. Name servers get JSON.
    #[default]
    Auto,
    /// As JSON, always: every broker and every proxy reads it.
    Json,
    /// In RocketMQ's binary form, always: for brokers of which it is known that they read it.
    Binary,
}

impl HeaderEncoding {
    /// What a new connection begins with.
    pub(super) const fn first(self) -> frame::HeaderEncoding {
        match self {
            Self::Auto | Self::Json => frame::HeaderEncoding::Json,
            Self::Binary => frame::HeaderEncoding::Binary,
        }
    }
}

/// What the answer to a heartbeat shows about the headers that its sender reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing: go on with JSON.
    Nothing,
    /// It comes from a kind of broker that reads binary headers, if it is what it says.
    Likely,
    /// It says that binary headers are read.
    Surely,
}

/// What the answer to a heartbeat shows.
pub(crate) fn shown(answer: &HeaderView<'_>) -> Shown {
    let says = HeartbeatReplyHeader::decode(&answer.ext);
    if says.is_ok_and(|says| says.reads_binary()) {
        Shown::Surely
    } else if answer.language == LanguageCode::JAVA && answer.version >= APACHE_VERSION_MIN {
        Shown::Likely
    } else {
        Shown::Nothing
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use mezzo_protocol::remoting::RemotingCommand;
    use mezzo_protocol::remoting::header::client::HEADER_ENCODINGS_BOTH;

    use super::*;

    fn shown_by(answer: &RemotingCommand) -> Shown {
        let mut bytes = BytesMut::new();
        answer.encode(frame::HeaderEncoding::Json, &mut bytes).unwrap();
        let frame = frame::split(&mut bytes, 1 << 16).unwrap().unwrap();
        shown(&HeaderView::parse(&frame).unwrap())
    }

    #[test]
    fn mezzo_says_it_apache_lets_it_be_guessed_and_others_get_json() {
        let plain = RemotingCommand::response(1, 0);
        let says = HeartbeatReplyHeader { header_encodings: Some(HEADER_ENCODINGS_BOTH.into()) };
        assert_eq!(shown_by(&plain.clone().with_ext(says.encode())), Shown::Surely);
        let mut java = plain.clone().with_language(LanguageCode::JAVA);
        assert_eq!(shown_by(&java), Shown::Likely);
        java.version = APACHE_VERSION_MIN - 1;
        assert_eq!(shown_by(&java), Shown::Nothing);
        assert_eq!(shown_by(&plain), Shown::Nothing);
        assert_eq!(shown_by(&plain.with_language(LanguageCode::CPP)), Shown::Nothing);
    }
}
