//! Consume, transform, produce: members of one group lease queues, and for each message that they take they produce one,
//! in a transaction that moves the group's offset with it. They are slow, die, and come back; for each message there
//! must be one that was made of it, and for those that the group has not passed there must be none.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::consumer::{Message, messages};
use tokio::sync::mpsc;

use crate::client::{Connection, Fields};
use crate::dice::Dice;
use crate::history::{History, MessageId, Place, TransactionId, Verdict};
use crate::plan::QUEUES;
use crate::producer::Producer;
use crate::retention::Watched;
use crate::trace::note;
use crate::world::World;

/// Where the messages come from.
pub const FROM: &str = "orders";
/// Where what is made of them goes.
pub const TO: &str = "derived";
/// The group whose offsets move.
pub const GROUP: &str = "CG_transform";
/// Who is asked about its transactions.
pub const PRODUCERS: &str = "PG_transform";

const PULL_MESSAGE: i32 = 11;
const END_TRANSACTION: i32 = 37;
const CHECK_TRANSACTION_STATE: i32 = 39;
const HEART_BEAT: i32 = 34;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const LEASE_QUEUE: i32 = 7_700_011;
const RELEASE_QUEUE: i32 = 7_700_012;
const SUCCESS: i32 = 0;
const ILLEGAL_OPERATION: i32 = 604;

/// A queue that this member may move the offset of.
struct Lease {
    queue: u32,
    epoch: u64,
    /// Where the group stands; `None` if it never said.
    stands: Option<u64>,
    /// Where this member reads on: behind what is gone.
    reads: u64,
}

struct Member {
    world: Arc<World>,
    producer: Arc<Producer>,
    name: String,
}

/// One member.
pub async fn run(world: Arc<World>, number: u64) {
    let mut life = 0;
    loop {
        life += 1;
        let mut dice = world.dice.of(&format!("transform {number} life {life}"));
        let (connection, asks) = Connection::open(&world, &mut dice).await;
        let producer = Producer { world: Arc::clone(&world), connection, group: PRODUCERS.to_owned() };
        // a restarted member has its old name, or another one
        let name =
            if dice.one_in(2) { format!("member-{number}") } else { format!("member-{number}-{life}") };
        let me = Arc::new(Member { world: Arc::clone(&world), producer: Arc::new(producer), name });
        let answering = world.spawn(answer(Arc::clone(&me), asks));
        while me.joined().await && !world.client_dies(&mut dice) {
            if world.is_abandoned() {
                break;
            }
            if !world.is_chaos() {
                tokio::time::sleep(dice.pause(1_000, 3_000)).await;
                continue;
            }
            tokio::time::sleep(dice.pause(0, world.plan.work_pause_ms_max)).await;
            let queue = dice.below(u64::from(QUEUES)) as u32;
            let Some(mut lease) = me.lease(&mut dice, queue).await else { continue };
            while world.is_chaos() && me.round(&mut dice, &mut lease).await {}
            if dice.one_in(2) {
                me.release(&lease).await;
            }
        }
        answering.abort();
        if world.is_abandoned() {
            return;
        }
    }
}

/// Nobody but the member that consumes knows whether it did: whoever is asked says no, and a commit that comes later is
/// told so.
async fn answer(me: Arc<Member>, mut asks: mpsc::UnboundedReceiver<RemotingCommand>) {
    while let Some(ask) = asks.recv().await {
        if ask.code != CHECK_TRANSACTION_STATE {
            continue;
        }
        me.world.history().stats.asked += 1;
        let field = |name: &'static str| (name, ask.ext_value(name).unwrap_or_default().to_owned());
        let fields = vec![
            ("producerGroup", PRODUCERS.to_owned()),
            field("tranStateTableOffset"),
            field("commitLogOffset"),
            ("commitOrRollback", Verdict::RollBack.flag().to_owned()),
            ("fromTransactionCheck", "true".to_owned()),
            field("msgId"),
            field("transactionId"),
        ];
        let request = me.producer.connection.request(END_TRANSACTION, fields, b"").oneway();
        me.producer.connection.post(&[request]);
    }
}

fn number(reply: &RemotingCommand, field: &str) -> Option<u64> {
    reply.ext_value(field)?.parse().ok()
}

fn queue_fields(queue: u32) -> Fields {
    vec![("consumerGroup", GROUP.to_owned()), ("topic", FROM.to_owned()), ("queueId", queue.to_string())]
}

impl Member {
    async fn joined(&self) -> bool {
        let body = format!(
            r#"{{"clientID":"{0}","producerDataSet":[{{"groupName":"{PRODUCERS}"}}],"consumerDataSet":[]}}"#,
            self.name
        );
        self.producer.connection.call(HEART_BEAT, Vec::new(), body.as_bytes()).await.is_some()
    }

    async fn lease(&self, dice: &mut Dice, queue: u32) -> Option<Lease> {
        let mut fields = queue_fields(queue);
        fields.push(("clientId", self.name.clone()));
        fields.push(("ttlMs", dice.between(1_000, 4_000).to_string()));
        let reply = self.producer.connection.call(LEASE_QUEUE, fields, b"").await?;
        let stands = number(&reply, "nextOffset");
        let lease = Lease { queue, epoch: number(&reply, "epoch")?, stands, reads: stands.unwrap_or(0) };
        note!(
            self.world.trace,
            "{}: lease {} of queue {queue}, at {:?}",
            self.name,
            lease.epoch,
            lease.stands
        );
        Some(lease)
    }

    async fn release(&self, lease: &Lease) {
        let mut fields = queue_fields(lease.queue);
        fields.push(("epoch", lease.epoch.to_string()));
        self.producer.connection.call(RELEASE_QUEUE, fields, b"").await;
    }

    /// Takes some messages, makes as many, and commits both; false when the lease is to be given up.
    async fn round(&self, dice: &mut Dice, lease: &mut Lease) -> bool {
        let from = lease.reads;
        let Some(reply) = self.pull(dice, lease.queue, from).await else { return false };
        let found = if reply.code == SUCCESS { messages(&reply.body) } else { Vec::new() };
        let Some(next) = number(&reply, "nextBeginOffset") else { return false };
        if found.is_empty() {
            // offsets jump after a loss, and what is deleted is passed over
            self.world.judge_moved(GROUP, &(FROM.to_owned(), lease.queue), from, next);
            lease.reads = next;
            return next > from && dice.one_in(2);
        }
        let Some(id) = self.produce(dice, lease.queue, &found).await else { return false };
        if dice.one_in(8) {
            // slow enough to be thought dead
            tokio::time::sleep(dice.pause(500, 5_000)).await;
        }
        if dice.one_in(12) {
            return false;
        }
        let moves = match lease.stands {
            Some(stands) => format!(r#""from":{stands},"#),
            None => String::new(),
        };
        let body = format!(
            r#"{{"consumerGroup":"{GROUP}","offsets":[{{"topic":"{FROM}","queueId":{},{moves}"offset":{next},"epoch":{}}}]}}"#,
            lease.queue, lease.epoch
        );
        (lease.stands, lease.reads) = (Some(next), next);
        for _ in 0..dice.between(1, 2) {
            if self.commit(id, found.len(), &body).await != Some(Verdict::Commit) {
                return false;
            }
        }
        dice.below(10) > 0
    }

    async fn pull(&self, dice: &mut Dice, queue: u32, from: u64) -> Option<RemotingCommand> {
        let mut fields = queue_fields(queue);
        fields.extend([
            ("queueOffset", from.to_string()),
            ("maxMsgNums", dice.between(1, 4).to_string()),
            ("sysFlag", "4".to_owned()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", "0".to_owned()),
            ("subscription", "*".to_owned()),
            ("subVersion", "1".to_owned()),
            ("expressionType", "TAG".to_owned()),
        ]);
        self.producer.connection.call(PULL_MESSAGE, fields, b"").await
    }

    /// One half message for each of `found`; the transaction, if all are stored.
    async fn produce(&self, dice: &mut Dice, queue: u32, found: &[Message]) -> Option<TransactionId> {
        let (id, key) = {
            let mut history = self.world.history();
            let id = history.begin(PRODUCERS, true);
            let transaction = history.transactions.get_mut(&id)?;
            // whoever is asked rolls it back, and so does a lease that was taken
            transaction.ended[1] = true;
            transaction.contradicted = true;
            (id, transaction.key.clone())
        };
        for (sequence, message) in found.iter().enumerate() {
            let made = {
                let mut history = self.world.history();
                let place = (TO.to_owned(), dice.below(u64::from(QUEUES)) as u32);
                let made = history.send(place, dice.below(300), 0, self.world.now_ms());
                history.join(id, made);
                history.derived.insert(made, ((FROM.to_owned(), queue), message.queue_offset));
                made
            };
            let sequence = sequence.to_string();
            let place = [("MEZZO_TX", key.as_str()), ("MEZZO_TX_SEQ", sequence.as_str())];
            let request = self.producer.send_request(
                &self.producer.connection,
                made,
                true,
                &format!("{made:032X}"),
                &place,
            );
            let reply = self.producer.connection.call_all(&[request]).await.pop().flatten();
            if !self.producer.told(made, true, reply.as_ref()) {
                return None;
            }
        }
        Some(id)
    }

    async fn commit(&self, id: TransactionId, count: usize, body: &str) -> Option<Verdict> {
        let key = {
            let mut history = self.world.history();
            history.ending(id, Verdict::Commit);
            history.transactions.get(&id)?.key.clone()
        };
        let fields = vec![
            ("producerGroup", PRODUCERS.to_owned()),
            ("tranStateTableOffset", "-1".to_owned()),
            ("commitLogOffset", "-1".to_owned()),
            ("commitOrRollback", Verdict::Commit.flag().to_owned()),
            ("transactionId", key),
            ("mezzoTxCount", count.to_string()),
            ("mezzoOffsets", "true".to_owned()),
        ];
        let asked_ms = self.world.now_ms();
        let reply = self.producer.connection.call(END_TRANSACTION, fields, body.as_bytes()).await?;
        let outcome = reply.ext_value("mezzoOutcome").unwrap_or_default().to_owned();
        note!(self.world.trace, "transaction {id}: commit with offsets answered {} {outcome}", reply.code);
        let mut history = self.world.history();
        let verdict = match (reply.code, outcome.as_str()) {
            (SUCCESS, "COMMITTED") => Verdict::Commit,
            (ILLEGAL_OPERATION, "ROLLED_BACK" | "FENCED") => Verdict::RollBack,
            _ => {
                self.world.judge_undecided(&mut history, id, asked_ms, &outcome, &reply);
                return None;
            }
        };
        history.decided(id, verdict, self.world.now_ms());
        if verdict == Verdict::Commit {
            history.stats.transformed += count as u64;
        }
        Some(verdict)
    }
}

/// Where the group stands in its queues; `None` if the broker does not say.
pub async fn stands(connection: &Connection) -> Option<BTreeMap<Place, u64>> {
    let mut stands = BTreeMap::new();
    for queue in 0..QUEUES {
        let mut fields = queue_fields(queue);
        fields.push(("setZeroIfNotFound", "true".to_owned()));
        let reply = connection.call(QUERY_CONSUMER_OFFSET, fields, b"").await?;
        let offset = if reply.code == SUCCESS { number(&reply, "offset").unwrap_or(0) } else { 0 };
        stands.insert((FROM.to_owned(), queue), offset);
    }
    Some(stands)
}

/// For each message below where the group stands one that was made of it is visible, for all others none.
pub fn judge(
    history: &History,
    counts: &BTreeMap<MessageId, u64>,
    found: &BTreeMap<Place, BTreeMap<u64, MessageId>>,
    stands: &BTreeMap<Place, u64>,
    watched: &Watched,
) -> Vec<String> {
    let mut made: BTreeMap<(&Place, u64), u64> = BTreeMap::new();
    for (id, (place, offset)) in &history.derived {
        *made.entry((place, *offset)).or_default() += counts.get(id).copied().unwrap_or(0);
    }
    let mut wrong = Vec::new();
    for (place, stands) in stands {
        let offsets = found.get(place).into_iter().flat_map(|queue| queue.keys());
        for offset in offsets {
            let expected = u64::from(offset < stands);
            let got = made.remove(&(place, *offset)).unwrap_or(0);
            // what was deleted may have been taken before, or passed over
            let passed_over = got == 0 && watched.are_gone(place, *offset..*offset + 1);
            if got != expected && !passed_over {
                wrong.push(format!(
                    "{GROUP} stands at {stands} of {place:?}, and of offset {offset} {got} messages were made"
                ));
            }
        }
    }
    for ((place, offset), got) in made {
        if got > 0 {
            wrong.push(format!("{got} messages were made of {place:?} offset {offset}, which is not there"));
        }
    }
    wrong
}
