//! Any stream is cut into frames: borrowed and owned cutting agree, no byte is lost, and headers are read or refused.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::frame::{peek, split};
use mezzo_protocol::remoting::{HeaderView, RemotingCommand};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    loop {
        let before = buffer.len();
        let borrowed = peek(&buffer, FRAME_BYTES_MAX).map(|frame| frame.map(|frame| frame.frame_len()));
        match split(&mut buffer, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => {
                assert_eq!(borrowed, Ok(Some(before - buffer.len())));
                let view = HeaderView::parse(&frame);
                let owned = RemotingCommand::from_frame(&frame);
                assert_eq!(view.is_ok(), owned.is_ok());
            }
            Ok(None) => {
                assert_eq!(borrowed, Ok(None));
                assert_eq!(buffer.len(), before);
                break;
            }
            Err(error) => {
                assert_eq!(borrowed, Err(error));
                break;
            }
        }
    }
});
