//! Queue locks of ordered consumers: LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42).

use mezzo_protocol::{
    ids::{GroupName, MessageQueue},
    limits::CLIENT_ID_BYTES_MAX,
    remoting::body::lock::{LockBatchReply, LockBatchRequest, QueueName},
};

use super::{
    client_manage::at_most,
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::queue_lock::LockedQueue;

/// LOCK_BATCH_MQ (41): answers with those of the queues that the client owns now. A queue that cannot be named is left
/// out and does not spoil the others.
pub(crate) fn lock(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let body = LockBatchRequest::decode(request.body())?;
    // every lock remembers it
    at_most("client id", body.client_id.len(), CLIENT_ID_BYTES_MAX)?;
    let group = GroupName::new(&body.consumer_group)?;
    let (names, queues) = valid(body.mq_set);
    let owned = turn.services.locks.lock(turn.now, &group, &body.client_id, &queues);
    let locked = names.into_iter().zip(owned).filter_map(|(name, owned)| owned.then_some(name)).collect();
    turn.reply(request, response::ok().with_body(LockBatchReply { locked }.encode()));
    Ok(Step::Done)
}

/// UNLOCK_BATCH_MQ (42): gives back what the client owns; clients mostly send it one-way while they stop.
pub(crate) fn unlock(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let body = LockBatchRequest::decode(request.body())?;
    let group = GroupName::new(&body.consumer_group)?;
    let (_, queues) = valid(body.mq_set);
    turn.services.locks.unlock(&group, &body.client_id, &queues);
    turn.reply(request, response::ok());
    Ok(Step::Done)
}

/// The queues that can be named, as they came and as the lock table names them.
fn valid(queues: Vec<QueueName>) -> (Vec<QueueName>, Vec<LockedQueue>) {
    queues
        .into_iter()
        .filter_map(|name| {
            let MessageQueue { topic, queue_id, .. } = MessageQueue::try_from(&name).ok()?;
            Some((name, (topic, queue_id)))
        })
        .unzip()
}
