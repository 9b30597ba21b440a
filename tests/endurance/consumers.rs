//! Those who read: one for each queue, which follows it by held pulls, reports how far it has come, dies now and then and
//! goes on from what the broker knows; and guests, whose groups come, look at the oldest messages, and go.

use std::iter;
use std::time::Duration;

use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::{Consumer, PULL_NOT_FOUND, PULL_OFFSET_MOVED, TOPIC_NOT_EXIST, messages};
use mezzo_tests::producer::SUCCESS;

use super::producers::{TOPIC, World};

const UPDATE_CONSUMER_OFFSET: i32 = 15;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UNREGISTER_CLIENT: i32 = 35;
const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
const GROUP: &str = "CG_endurance";
/// The subscription is in the request, and it may be held.
const HELD: &str = "6";
const HOLD_MS: &str = "500";
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// One of so many pulls is the last of its client.
const KILLED_EVERY: u64 = 100;
/// Names that guests go by, one after another.
const GUESTS: u64 = 8;
/// Pulls of one visit.
const GUEST_PULLS: u64 = 20;

/// Follows a queue until all is over.
pub(crate) fn follow(world: &World, mut chance: Chance, queue: u32) {
    let mut next = None;
    while !world.is_over() {
        let mut consumer = Consumer::connect(world.broker, GROUP);
        consumer.join(&[TOPIC]);
        let place = queue.to_string();
        let place = [("consumerGroup", GROUP), ("topic", TOPIC), ("queueId", &*place)];
        let answer = consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"");
        let known: u64 = answer.ext_value("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
        if next.is_some_and(|next| known > next) {
            world.books.complain(format!("queue {queue}: {known} is more than was ever reported"));
        }
        let mut from = known;
        while !world.is_over() && chance.below(KILLED_EVERY) > 0 {
            let Some(after) = pull(world, &mut consumer, queue, from) else { break };
            if after > from {
                let offset = after.to_string();
                let report = [&place[..], &[("commitOffset", &*offset)]].concat();
                consumer.wire.oneway(UPDATE_CONSUMER_OFFSET, &report, b"");
                next = Some(next.unwrap_or(0).max(after));
            }
            from = after;
        }
        // dies with a pull under way, as often as not one that is held
        let last = consumer.pull_request(TOPIC, queue, from, "*", HELD, HOLD_MS);
        let _ = consumer.wire.try_send_all(iter::once(&last));
    }
}

/// One pull; where to go on, `None` if nobody answers.
fn pull(world: &World, consumer: &mut Consumer, queue: u32, from: u64) -> Option<u64> {
    let request = consumer.pull_request(TOPIC, queue, from, "*", HELD, HOLD_MS);
    consumer.wire.try_send_all(iter::once(&request))?;
    let reply = consumer.wire.try_answer(request.opaque, ANSWER)?;
    let after = || reply.ext_value("nextBeginOffset").and_then(|text| text.parse().ok()).unwrap_or(from);
    match reply.code {
        SUCCESS => {
            messages(&reply.body).iter().for_each(|message| world.books.see(message));
            Some(after())
        }
        PULL_NOT_FOUND | TOPIC_NOT_EXIST => Some(from),
        PULL_OFFSET_MOVED => {
            let to = after();
            world
                .books
                .complain(format!("queue {queue} begins at {to}: this machine was too slow to read {from}"));
            Some(to)
        }
        code => {
            world.books.complain(format!("a pull is answered {code}: {:?}", reply.remark));
            Some(from)
        }
    }
}

/// Groups that come and go, until it is time to rest.
pub(crate) fn visit(world: &World, mut chance: Chance) {
    for visit in 0.. {
        if world.is_resting() {
            return;
        }
        let group = format!("CG_guest_{}", visit % GUESTS);
        let mut guest = Consumer::connect(world.broker, &group);
        guest.join(&[TOPIC]);
        let mut from = 0;
        for _ in 0..chance.below(GUEST_PULLS) {
            let request = guest.pull_request(TOPIC, 0, from, "*", HELD, HOLD_MS);
            guest.wire.send(&request);
            let Some(reply) = guest.wire.try_answer(request.opaque, ANSWER) else { break };
            from = reply.ext_value("nextBeginOffset").and_then(|text| text.parse().ok()).unwrap_or(from);
        }
        let offset = from.to_string();
        let report =
            [("consumerGroup", &*group), ("topic", TOPIC), ("queueId", "0"), ("commitOffset", &*offset)];
        guest.wire.call(UPDATE_CONSUMER_OFFSET, &report, b"");
        if chance.below(2) == 0 {
            let id = format!("{group}@test");
            guest.wire.call(UNREGISTER_CLIENT, &[("clientID", &id), ("consumerGroup", &group)], b"");
            let gone = guest.wire.call(DELETE_SUBSCRIPTIONGROUP, &[("groupName", &group)], b"");
            if gone.code != SUCCESS {
                world.books.complain(format!("{group} cannot be deleted: {:?}", gone.remark));
            }
        }
    }
}
