//! What both header targets check: typed headers never panic, and reading, writing, reading gives the same command.

use bytes::{Bytes, BytesMut};
use mezzo_protocol::limits::{FRAME_BYTES_MAX, REMARK_BYTES_MAX};
use mezzo_protocol::remoting::frame::split;
use mezzo_protocol::remoting::header::{
    end_transaction::EndTransactionHeader, pull_message::PullMessageHeader, send_message::SendMessageHeader,
};
use mezzo_protocol::remoting::{Frame, HeaderEncoding, HeaderView, RemotingCommand};

/// Reads `header`, and if it is one, writes it and reads it again.
pub fn check(encoding: HeaderEncoding, header: &[u8]) {
    let frame = Frame { encoding, header: Bytes::copy_from_slice(header), body: Bytes::new() };
    let Ok(view) = HeaderView::parse(&frame) else { return };
    let _ = SendMessageHeader::decode(&view.ext);
    let _ = PullMessageHeader::decode(&view.ext);
    let _ = EndTransactionHeader::decode(&view.ext);

    let Ok(first) = RemotingCommand::from_frame(&frame) else {
        panic!("a header that was read is read again")
    };
    if first.remark.as_ref().is_some_and(|remark| remark.len() > REMARK_BYTES_MAX) {
        return;
    }
    let mut wire = BytesMut::new();
    if first.encode(encoding, &mut wire).is_err() {
        assert!(wire.is_empty());
        return;
    }
    let Ok(Some(frame)) = split(&mut wire, FRAME_BYTES_MAX) else { panic!("what is written is a frame") };
    let Ok(mut second) = RemotingCommand::from_frame(&frame) else { panic!("what is written is a header") };
    // A language code without a name is written as OTHER in JSON.
    second.language = first.language;
    assert_eq!(first, second);
}
