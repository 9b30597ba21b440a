//! Liveness and the last look: faults have stopped, time passes, and everything must come to rest; then every queue is
//! read from its beginning and held against everything that anybody was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_storage::OpenFilter;
use mezzo_tests::consumer::messages;
use tokio::time::Instant;

use crate::client::Connection;
use crate::consumer::{dead_letter_topic, retry_topic};
use crate::history::{History, MessageId, Place, Sent, Told, Transaction, Verdict};
use crate::plan::QUEUES;
use crate::retention;
use crate::trace::note;
use crate::transform;
use crate::world::{ALL_TOPICS, World};

/// Until when everything must have come to rest, in virtual time: check-backs back off to sixteen times their interval,
/// which is five seconds at most, and delays are shorter.
const REST_WITHIN: Duration = Duration::from_secs(240);
/// Open transactions that are shown when nothing comes to rest.
const OPEN_SHOWN: usize = 20;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const PULL_MESSAGE: i32 = 11;
const SUCCESS: i32 = 0;
const TOPIC_NOT_EXIST: i32 = 17;
const PULL_NOT_FOUND: i32 = 19;

/// Everything that a place holds, by offset.
type Found = BTreeMap<Place, BTreeMap<u64, MessageId>>;
/// Where the transforming group stands.
type Stands = BTreeMap<Place, u64>;

/// Waits for rest and judges what is left.
pub async fn settle(world: &Arc<World>) {
    let until = Instant::now() + REST_WITHIN;
    let mut found;
    let mut stands;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let known = known(world);
        let open = world.host.process().map(|process| process.broker.store().open_messages());
        let mut why = match open {
            None => "no broker serves".to_owned(),
            Some(0) => String::new(),
            Some(open) => {
                let in_doubt = world.host.process().map(|process| process.broker.store().in_doubt());
                format!("{open} messages are still open, transactions in doubt: {in_doubt:?}")
            }
        };
        found = Found::new();
        stands = Stands::new();
        if why.is_empty() {
            match audit(world).await {
                Some((everything, group)) => {
                    found = everything;
                    stands = group;
                    why = not_given(world, &found).unwrap_or_default();
                    if known != self::known(world) {
                        "something was stored while it was looked".clone_into(&mut why);
                    }
                }
                None => "the last look got no answer".clone_into(&mut why),
            }
        }
        if why.is_empty() {
            break;
        }
        if !world.history().violations.is_empty() {
            return;
        }
        if Instant::now() >= until {
            if let Some(process) = world.host.process() {
                let (store, now) = (process.broker.store(), process.broker.now());
                for open in store.open_transactions_page(&OpenFilter::default(), now, None, OPEN_SHOWN) {
                    note!(world.trace, "settle: open at {now}: {open:?}");
                }
            }
            world.history().violation(format!("nothing came to rest: {why}"));
            return;
        }
    }
    note!(world.trace, "settle: at rest");
    retention::judge(world);
    // what retention has deleted was there
    for (place, gone) in world.watched().gone() {
        found.entry(place.clone()).or_default().extend(gone);
    }
    judge(world, &found, &stands);
}

/// How many messages were acknowledged, and how many seen: what is stored behind the place where the look is shows here.
fn known(world: &World) -> (u64, usize) {
    let history = world.history();
    (history.stats.acknowledged, history.seen.values().map(BTreeMap::len).sum())
}

/// A group that was not given everything yet.
fn not_given(world: &World, found: &Found) -> Option<String> {
    let mut history = world.history();
    let all: BTreeSet<MessageId> = found
        .iter()
        .filter(|((topic, _), _)| !topic.starts_with('%'))
        .flat_map(|(_, queue)| queue.values().copied())
        .collect();
    for number in 0..world.plan.consumers {
        let group = format!("CG_{number}");
        let given = history.given.entry(group.clone()).or_default();
        if let Some(id) = all.difference(given).next() {
            return Some(format!("message {id} was not given to {group}"));
        }
    }
    None
}

/// Reads all queues; `None` if the broker did not answer.
async fn audit(world: &Arc<World>) -> Option<(Found, Stands)> {
    let mut dice = world.dice.of("audit");
    let (connection, _) = Connection::open(world, &mut dice).await;
    let mut places: Vec<Place> = Vec::new();
    for topic in ALL_TOPICS {
        places.extend((0..QUEUES).map(|queue| (topic.to_owned(), queue)));
    }
    for number in 0..world.plan.consumers {
        let group = format!("CG_{number}");
        places.push((retry_topic(&group), 0));
        places.push((dead_letter_topic(&group), 0));
    }
    let mut found = Found::new();
    for place in places {
        let queue = read(world, &connection, &place).await?;
        found.insert(place, queue);
    }
    let stands = transform::stands(&connection).await?;
    Some((found, stands))
}

async fn read(
    world: &Arc<World>,
    connection: &Connection,
    place: &Place,
) -> Option<BTreeMap<u64, MessageId>> {
    let mut queue = BTreeMap::new();
    let mut from = 0;
    loop {
        let fields = vec![
            // one that is there: at the disk budget a new one is refused
            ("consumerGroup", "CG_0".to_owned()),
            ("topic", place.0.clone()),
            ("queueId", place.1.to_string()),
            ("queueOffset", from.to_string()),
            ("maxMsgNums", "32".to_owned()),
            ("sysFlag", "4".to_owned()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", "0".to_owned()),
            ("subscription", "*".to_owned()),
            ("subVersion", "1".to_owned()),
            ("expressionType", "TAG".to_owned()),
        ];
        let reply = connection.call(PULL_MESSAGE, fields, b"").await?;
        let next = number(&reply, "nextBeginOffset").unwrap_or(from);
        match reply.code {
            SUCCESS => {
                let messages = messages(&reply.body);
                world.judge_pull("CG_audit", place, from, next, &messages);
                let now_ms = world.now_ms();
                let mut history = world.history();
                for message in &messages {
                    if let Some(id) = history.give("CG_audit", message, now_ms) {
                        queue.insert(message.queue_offset, id);
                    }
                }
            }
            TOPIC_NOT_EXIST => return Some(queue),
            PULL_NOT_FOUND if next == from => return Some(queue),
            _ if next > from => world.judge_moved("CG_audit", place, from, next),
            _ => return None,
        }
        from = next;
    }
}

fn number(reply: &RemotingCommand, field: &str) -> Option<u64> {
    reply.ext_value(field)?.parse().ok()
}

/// Everything that was told against everything that is there.
fn judge(world: &World, found: &Found, stands: &Stands) {
    let mut history = world.history();
    let history = &mut *history;
    let memory = world.plan.memory;
    let mut counts: BTreeMap<MessageId, u64> = BTreeMap::new();
    let mut copies: BTreeMap<(String, MessageId), u64> = BTreeMap::new();
    for ((topic, _), queue) in found {
        for id in queue.values() {
            match topic.strip_prefix("%RETRY%").or_else(|| topic.strip_prefix("%DLQ%")) {
                Some(group) => *copies.entry((group.to_owned(), *id)).or_default() += 1,
                None => *counts.entry(*id).or_default() += 1,
            }
        }
    }
    let mut wrong = Vec::new();
    let most = |id: &MessageId, sent: &Sent| {
        let gone = if sent.tries > 1 { world.watched().copies_gone(*id) } else { 0 };
        history.copies_max(sent, gone)
    };
    for (id, sent) in &history.messages {
        if sent.transaction.is_some() {
            continue;
        }
        let count = counts.get(id).copied().unwrap_or(0);
        let right = match sent.told {
            Told::Stored { .. } if history.message_may_be_lost(sent) => count <= most(id, sent),
            Told::Stored { .. } => (1..=most(id, sent)).contains(&count),
            Told::Refused => count == 0,
            Told::Nothing => count <= most(id, sent),
        };
        if !right {
            wrong.push(format!(
                "message {id} is there {count} times, and its producer was told {:?}",
                sent.told
            ));
        }
    }
    for (id, transaction) in &history.transactions {
        let of_each: Vec<u64> =
            transaction.messages.iter().map(|id| counts.get(id).copied().unwrap_or(0)).collect();
        // what came behind the decision was refused, and is in no transaction
        let refused = |id| history.messages.get(id).is_some_and(|sent| matches!(sent.told, Told::Refused));
        let as_told = |(id, count): (_, &u64)| *count == u64::from(!refused(id));
        let visible = transaction.messages.iter().zip(&of_each).all(as_told) && !of_each.is_empty();
        let invisible = of_each.iter().all(|count| *count == 0);
        let right = match expected(history, transaction) {
            Some(Verdict::Commit) => visible,
            Some(Verdict::RollBack) => invisible,
            None => visible || invisible,
        };
        if !right {
            wrong.push(format!("transaction {id} is there {of_each:?} times: {transaction:?}"));
        }
    }
    for (key, asked) in &history.sent_back {
        let count = copies.get(key).copied().unwrap_or(0);
        let safe =
            asked.safe.iter().filter(|told_ms| !history.decision_may_be_lost(**told_ms)).count() as u64;
        if count < safe || count > asked.asked {
            wrong.push(format!("{key:?} was sent back {asked:?} and is there {count} times"));
        }
    }
    if world.plan.transformers > 0 {
        wrong.extend(transform::judge(history, &counts, found, stands, &world.watched()));
    }
    // what was seen once at acknowledgement `durable` stays for good
    if !memory {
        for (place, seen) in &history.seen {
            let now = found.get(place);
            for (offset, id) in seen {
                if now.and_then(|queue| queue.get(offset)) != Some(id) {
                    wrong.push(format!("{place:?} offset {offset} was message {id} and is no more"));
                }
            }
        }
    }
    for text in wrong {
        history.violation(text);
    }
}

/// What must have become of a transaction; `None` where either may be.
fn expected(history: &History, transaction: &Transaction) -> Option<Verdict> {
    let messages = || transaction.messages.iter().filter_map(|message| history.messages.get(message));
    let all_stored = messages().all(|sent| matches!(sent.told, Told::Stored { .. }));
    let lost_messages = messages().any(|sent| history.message_may_be_lost(sent));
    if !transaction.ended[0] {
        return Some(Verdict::RollBack);
    }
    if let Some((verdict, told_ms)) = transaction.decided
        && !history.decision_may_be_lost(told_ms)
        && !lost_messages
    {
        return Some(verdict);
    }
    if transaction.contradicted || transaction.may_expire || lost_messages || !all_stored {
        return None;
    }
    transaction.database
}
