//! Which request codes are served, by which file. Everything else is answered REQUEST_CODE_NOT_SUPPORTED (3), so that
//! no client waits for an answer that cannot come.

use mezzo_protocol::remoting::{request_code::RequestCode as Code, response_code::ResponseCode};

use super::{
    client_manage, consume_stats, consumer_offset, consumer_send_back, end_transaction, group_admin, lease,
    name_server, overload, pull_message, queue_lock, send_message, topic_admin, transaction_admin,
    turn::{Handled, Request, Role, Step, Turn},
    view_message,
};

/// Hands `request` to the file that serves its code on a listener of this `role`. Adds exactly one reply to the turn,
/// unless the request is one-way, will be answered later, or has to come again after a topic was created.
pub(crate) fn dispatch(role: Role, turn: &mut Turn<'_>, request: &Request<'_>) -> Step {
    if let Some(refusal) = overload::refusal(turn.services, request.header.code) {
        turn.reply(request, refusal);
        return Step::Done;
    }
    let handled = match role {
        Role::Broker => broker(turn, request),
        Role::NameServer => name_server(turn, request),
    };
    handled.unwrap_or_else(|malformed| {
        turn.refuse(request, ResponseCode::SYSTEM_ERROR, malformed.to_string());
        Step::Done
    })
}

fn broker(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    match Code(request.header.code) {
        Code::SEND_MESSAGE | Code::SEND_MESSAGE_V2 | Code::SEND_BATCH_MESSAGE => {
            send_message::handle(turn, request)
        }
        Code::PULL_MESSAGE | Code::LITE_PULL_MESSAGE => pull_message::handle(turn, request),
        Code::END_TRANSACTION => end_transaction::handle(turn, request),
        Code::QUERY_CONSUMER_OFFSET
        | Code::UPDATE_CONSUMER_OFFSET
        | Code::SEARCH_OFFSET_BY_TIMESTAMP
        | Code::GET_MAX_OFFSET
        | Code::GET_MIN_OFFSET
        | Code::GET_EARLIEST_MSG_STORETIME => consumer_offset::handle(turn, request),
        Code::GET_CONSUME_STATS => consume_stats::handle(turn, request),
        Code::CONSUMER_SEND_MSG_BACK => consumer_send_back::handle(turn, request),
        Code::VIEW_MESSAGE_BY_ID => view_message::handle(turn, request),
        Code::HEART_BEAT => client_manage::heartbeat(turn, request),
        Code::UNREGISTER_CLIENT => client_manage::unregister(turn, request),
        Code::CHECK_CLIENT_CONFIG => client_manage::check_client_config(turn, request),
        Code::GET_CONSUMER_LIST_BY_GROUP => client_manage::consumer_list(turn, request),
        Code::LOCK_BATCH_MQ => queue_lock::lock(turn, request),
        Code::UNLOCK_BATCH_MQ => queue_lock::unlock(turn, request),
        Code::UPDATE_AND_CREATE_TOPIC => topic_admin::update(turn, request),
        Code::DELETE_TOPIC_IN_BROKER => topic_admin::delete(turn, request),
        Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => group_admin::update(turn, request),
        Code::DELETE_SUBSCRIPTIONGROUP => group_admin::delete(turn, request),
        Code::MEZZO_LIST_TRANSACTIONS => transaction_admin::list(turn, request),
        Code::MEZZO_SHOW_TRANSACTION => transaction_admin::show(turn, request),
        Code::MEZZO_DECIDE_TRANSACTION => transaction_admin::decide(turn, request),
        Code::MEZZO_RESUME_TRANSACTION => transaction_admin::resume(turn, request),
        Code::MEZZO_GET_CHECK_POLICY => transaction_admin::policy(turn, request),
        Code::MEZZO_SET_CHECK_POLICY => transaction_admin::set_policy(turn, request),
        Code::MEZZO_LEASE_QUEUE => lease::grant(turn, request),
        Code::MEZZO_RELEASE_QUEUE => lease::release(turn, request),
        Code::RESUME_CHECK_HALF_MESSAGE => transaction_admin::resume_check(turn, request),
        _ => not_supported(turn, request),
    }
}

fn name_server(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    match Code(request.header.code) {
        Code::GET_ROUTEINFO_BY_TOPIC => name_server::route(turn, request),
        Code::GET_BROKER_CLUSTER_INFO => name_server::cluster(turn, request),
        Code::GET_KV_CONFIG => name_server::kv_config(turn, request),
        Code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => name_server::topic_list(turn, request),
        Code::DELETE_TOPIC_IN_NAMESRV => name_server::forget_topic(turn, request),
        _ => not_supported(turn, request),
    }
}

fn not_supported(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let code = request.header.code;
    if turn.services.metrics.first_unsupported(code) {
        tracing::warn!(code, name = Code(code).name(), from = %turn.channel.remote_address(), "request code not supported");
    }
    turn.refuse(
        request,
        ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
        format!("request code {code} is not supported"),
    );
    Ok(Step::Done)
}
