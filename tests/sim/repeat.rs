//! The same message again, when nobody answered, or because its producer is not sure: to a topic with de-duplication,
//! where at most one copy may be stored within the window, and every answer names the first.
//!
//! Under `strict` the message says an id of its own, and comes again by any connection. Under `retries` it comes as
//! clients send it: alone on its connection, which is closed when no answer comes, and again on another one.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;

use crate::client::{Connection, Fields};
use crate::dice::Dice;
use crate::history::MessageId;
use crate::plan::{Dedup, QUEUES};
use crate::producer::{Producer, SUCCESS, number};
use crate::trace::note;
use crate::world::{REPEATS, World};

const UPDATE_AND_CREATE_TOPIC: i32 = 17;
/// Most sends of one message.
const TRIES_MAX: u64 = 4;
/// After so long everything that a closed connection had on its way has arrived.
const ARRIVED: Duration = Duration::from_secs(4);
/// A try may be carried out so long after it was sent.
pub const TRY_MS_MAX: u64 = 10_000;

/// Creates the topic; producers wait for that.
pub async fn found(world: Arc<World>) {
    let Some(dedup) = world.plan.dedup else { return };
    let mut dice = world.dice.of("founder");
    loop {
        let (connection, _) = Connection::open(&world, &mut dice).await;
        let fields: Fields = vec![
            ("topic", REPEATS.to_owned()),
            ("defaultTopic", "TBW102".to_owned()),
            ("readQueueNums", QUEUES.to_string()),
            ("writeQueueNums", QUEUES.to_string()),
            ("perm", "6".to_owned()),
            ("topicFilterType", "SINGLE_TAG".to_owned()),
            ("topicSysFlag", "0".to_owned()),
            ("order", "false".to_owned()),
            ("attributes", format!("+dedup={}", if dedup.strict { "strict" } else { "retries" })),
        ];
        let reply = connection.call(UPDATE_AND_CREATE_TOPIC, fields, b"").await;
        if reply.is_some_and(|reply| reply.code == SUCCESS) {
            return world.founded();
        }
    }
}

impl Producer {
    /// The de-duplication of the topic that a message goes to, if it has any.
    pub fn dedup_of(&self, id: MessageId) -> Option<Dedup> {
        let history = self.world.history();
        let here = history.messages.get(&id).is_some_and(|sent| sent.place.0 == REPEATS);
        self.world.plan.dedup.filter(|_| here)
    }

    /// Sends a message until it is answered or its producer gives up, and sometimes once more after that. What it was
    /// told is noted; the answer that it goes on with, and whether the broker answered at all.
    pub async fn send_repeatedly(
        &self,
        dice: &mut Dice,
        id: MessageId,
        half: bool,
        key: &str,
        more: &[(&str, &str)],
        dedup: Dedup,
    ) -> Option<RemotingCommand> {
        let tries = if half && !dedup.halves { 1 } else { dice.between(1, TRIES_MAX) };
        let own_id = format!("m{id}");
        let mut more = more.to_vec();
        if dedup.strict {
            more.push(("MEZZO_DEDUP_ID", own_id.as_str()));
        }
        let mut alone = None;
        let mut answer = None;
        let mut certain = true;
        for number in 0..tries {
            if number > 0 {
                let pause = if dedup.strict { dice.pause(0, 1_500) } else { ARRIVED };
                tokio::time::sleep(pause).await;
                note!(self.world.trace, "message {id} is sent again");
            }
            let connection = match &alone {
                None if dedup.strict && dice.one_in(2) => Arc::clone(&self.connection),
                None => Arc::clone(alone.insert(Connection::open(&self.world, dice).await.0)),
                Some(connection) => Arc::clone(connection),
            };
            self.world.history().tried(id, self.world.now_ms());
            let request = self.send_request(&connection, id, half, key, &more);
            let reply = connection.call_all(&[request]).await.pop().flatten();
            match reply {
                Some(reply) if reply.code == SUCCESS => {
                    answer = Some(reply);
                    break;
                }
                // an earlier try may have been stored, whatever this one is told
                Some(reply) if certain && number == 0 => {
                    self.told(id, half, Some(&reply));
                    return Some(reply);
                }
                Some(_) => {}
                None => {
                    certain = false;
                    alone = None;
                }
            }
        }
        self.told(id, half, answer.as_ref());
        let first = answer?;
        if tries > 1 && dedup.strict && dice.one_in(3) {
            // it has its answer and sends it all the same
            // a half, so late that it may have been carried meanwhile
            let longest = if half && self.world.plan.retention.is_some() { 8_000 } else { 3_000 };
            tokio::time::sleep(dice.pause(0, longest)).await;
            self.world.history().tried(id, self.world.now_ms());
            let request = self.send_request(&self.connection, id, half, key, &more);
            let again = self.connection.call_all(&[request]).await.pop().flatten();
            self.judge_repeat(id, half, dedup, &first, again.as_ref());
        }
        Some(first)
    }

    /// Within the window a repeat is answered as the first was.
    fn judge_repeat(
        &self,
        id: MessageId,
        half: bool,
        dedup: Dedup,
        first: &RemotingCommand,
        again: Option<&RemotingCommand>,
    ) {
        let Some(again) = again.filter(|reply| reply.code == SUCCESS) else { return };
        let now_ms = self.world.now_ms();
        let gone = self.world.watched().copies_gone(id) > 0;
        let mut history = self.world.history();
        let Some(sent) = history.messages.get(&id) else { return };
        // what became visible after its delay has another place than the one that its send was told
        let told_place = half || sent.delay_ms == 0;
        let within = history.is_within(sent, now_ms, dedup.window_ms);
        // a half that was rolled back may be deleted at any time, and nobody hears of it
        let may_be_decided = sent
            .transaction
            .and_then(|id| history.transactions.get(&id))
            .is_some_and(|transaction| transaction.ended != [false; 2] || transaction.may_expire);
        if !told_place || !dedup.exact || !within || gone || may_be_decided {
            return;
        }
        history.stats.saw("repeat answered as the first send", 1);
        let (one, other) = (number(first, "queueOffset"), number(again, "queueOffset"));
        if one != other {
            history.violation(format!("message {id} was stored at {one:?}, and its repeat at {other:?}"));
        }
    }
}
