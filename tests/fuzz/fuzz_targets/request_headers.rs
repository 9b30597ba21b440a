//! Any extension fields as any request's or answer's header, in both encodings: read or refused; what is read can be
//! written and means the same again. And Mezzo's own bodies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::remoting::body::transaction_offsets::TransactionOffsetsBody;
use mezzo_protocol::remoting::header::{
    check_transaction_state, client, consumer_offset, consumer_send_back, end_transaction, lease,
    pull_message, send_message, topic, transaction_admin, view_message,
};
use mezzo_protocol::remoting::{HeaderEncoding, HeaderView, RemotingCommand, frame};

/// Reads, writes into a frame, reads again.
macro_rules! round {
    ($encoding:expr, $ext:expr, $($header:path),* $(,)?) => {$(
        if let Ok(read) = <$header>::decode($ext) {
            let command = RemotingCommand::request(0, read.encode(), Vec::new());
            let mut bytes = bytes::BytesMut::new();
            if command.encode($encoding, &mut bytes).is_ok()
                && let Ok(Some(frame)) = frame::split(&mut bytes, 64 << 20)
            {
                let view = HeaderView::parse(&frame).expect("what is written is read");
                assert_eq!(<$header>::decode(&view.ext).as_ref(), Ok(&read));
            }
        }
    )*};
}

fuzz_target!(|data: &[u8]| {
    let _ = TransactionOffsetsBody::decode(data);
    for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
        let Ok(view) = HeaderView::parse_bytes(encoding, data) else { continue };
        round!(
            encoding,
            &view.ext,
            check_transaction_state::CheckTransactionStateHeader<'_>,
            client::HeartbeatReplyHeader<'_>,
            client::UnregisterClientHeader<'_>,
            client::ConsumerListHeader<'_>,
            client::NotifyConsumerIdsChangedHeader<'_>,
            consumer_offset::QueryConsumerOffsetHeader<'_>,
            consumer_offset::UpdateConsumerOffsetHeader<'_>,
            consumer_offset::SearchOffsetHeader<'_>,
            consumer_offset::QueueHeader<'_>,
            consumer_offset::ConsumeStatsHeader<'_>,
            consumer_offset::OffsetReply,
            consumer_offset::EarliestStoreTimeReply,
            consumer_send_back::ConsumerSendBackHeader<'_>,
            end_transaction::EndTransactionHeader<'_>,
            lease::LeaseQueueHeader<'_>,
            lease::LeaseQueueReply,
            lease::ReleaseQueueHeader<'_>,
            pull_message::PullMessageHeader<'_>,
            pull_message::PullMessageReply,
            send_message::SendMessageHeader<'_>,
            send_message::SendMessageReply<'_>,
            topic::CreateTopicHeader<'_>,
            topic::DeleteTopicHeader<'_>,
            topic::RouteHeader<'_>,
            transaction_admin::ListTransactionsHeader<'_>,
            transaction_admin::ShowTransactionHeader,
            transaction_admin::DecideTransactionHeader<'_>,
            transaction_admin::ResumeTransactionHeader,
            transaction_admin::ResumeCheckHalfMessageHeader<'_>,
            transaction_admin::GetCheckPolicyHeader<'_>,
            transaction_admin::SetCheckPolicyHeader<'_>,
            view_message::ViewMessageHeader<'_>,
        );
    }
});
