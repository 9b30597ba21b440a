//! Consumers: pulls that wait and pulls that do not, reports of offsets, messages sent back, and consumers that die and
//! begin again where their group is known to stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::consumer::{Message, messages};

use crate::client::{Connection, Fields};
use crate::dice::Dice;
use crate::history::Place;
use crate::plan::QUEUES;
use crate::world::{ALL_TOPICS, World};

const PULL_MESSAGE: i32 = 11;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const HEART_BEAT: i32 = 34;
const SEND_BACK: i32 = 36;
const SUCCESS: i32 = 0;
const PULL_NOT_FOUND: i32 = 19;
const PULL_RETRY_IMMEDIATELY: i32 = 20;
const PULL_OFFSET_MOVED: i32 = 21;
/// `sysFlag`: the subscription is in this request; with 2 the pull may wait.
const WITH_SUBSCRIPTION: u32 = 4;
const MAY_WAIT: u32 = 2;

/// The only consumer of a group.
pub async fn run(world: Arc<World>, number: u64) {
    let mut life = 0;
    loop {
        life += 1;
        let mut dice = world.dice.of(&format!("consumer {number} life {life}"));
        let (connection, _) = Connection::open(&world, &mut dice).await;
        let mut me = Consumer {
            world: Arc::clone(&world),
            connection,
            group: format!("CG_{number}"),
            next: BTreeMap::new(),
        };
        if !me.join().await {
            continue;
        }
        while !world.client_dies(&mut dice) {
            tokio::time::sleep(dice.pause(0, world.plan.work_pause_ms_max)).await;
            if !me.work(&mut dice).await {
                break;
            }
        }
    }
}

struct Consumer {
    world: Arc<World>,
    connection: Arc<Connection>,
    group: String,
    /// Where it goes on, of the queues that it has asked about.
    next: BTreeMap<Place, u64>,
}

fn number(reply: &RemotingCommand, field: &str) -> Option<u64> {
    reply.ext_value(field)?.parse().ok()
}

/// The topic of what a group has sent back.
pub fn retry_topic(group: &str) -> String {
    format!("%RETRY%{group}")
}

/// Where messages go that were sent back too often.
pub fn dead_letter_topic(group: &str) -> String {
    format!("%DLQ%{group}")
}

impl Consumer {
    async fn join(&self) -> bool {
        let subscriptions: Vec<String> =
            ALL_TOPICS.iter().map(|topic| format!(r#"{{"topic":"{topic}","subString":"*"}}"#)).collect();
        let body = format!(
            r#"{{"clientID":"{0}@sim","producerDataSet":[],"consumerDataSet":[{{"groupName":"{0}",
            "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
            "consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{1}]}}]}}"#,
            self.group,
            subscriptions.join(",")
        );
        let reply = self.connection.call(HEART_BEAT, Vec::new(), body.as_bytes()).await;
        reply.is_some_and(|reply| reply.code == SUCCESS)
    }

    fn place_fields(&self, place: &Place) -> Fields {
        vec![
            ("consumerGroup", self.group.clone()),
            ("topic", place.0.clone()),
            ("queueId", place.1.to_string()),
        ]
    }

    /// One queue, chosen by chance; false if the broker did not answer.
    async fn work(&mut self, dice: &mut Dice) -> bool {
        let retries = retry_topic(&self.group);
        let topic = if dice.one_in(5) { retries.as_str() } else { *dice.pick(&ALL_TOPICS) };
        let queue = if topic.starts_with('%') { 0 } else { dice.below(u64::from(QUEUES)) as u32 };
        let place = (topic.to_owned(), queue);
        if !self.next.contains_key(&place) {
            let Some(from) = self.begin_at(&place).await else { return false };
            self.next.insert(place.clone(), from);
        }
        let from = self.next[&place];
        let Some(reply) = self.pull(dice, &place, from).await else { return false };
        match reply.code {
            SUCCESS => self.consume(dice, &place, from, &reply).await,
            PULL_OFFSET_MOVED | PULL_NOT_FOUND | PULL_RETRY_IMMEDIATELY => {
                let to = number(&reply, "nextBeginOffset").unwrap_or(from);
                self.world.judge_moved(&self.group, &place, from, to);
                self.next.insert(place, to);
                true
            }
            // the topic is not there yet, or the broker is about to end
            _ => true,
        }
    }

    /// Where the group is known to stand.
    async fn begin_at(&self, place: &Place) -> Option<u64> {
        let mut fields = self.place_fields(place);
        fields.push(("setZeroIfNotFound", "true".to_owned()));
        let asked_ms = self.world.now_ms();
        let reply = self.connection.call(QUERY_CONSUMER_OFFSET, fields, b"").await?;
        let told = if reply.code == SUCCESS { number(&reply, "offset") } else { None };
        self.world.judge_offset(&self.group, place, told, asked_ms);
        Some(told.unwrap_or(0))
    }

    async fn pull(&self, dice: &mut Dice, place: &Place, from: u64) -> Option<RemotingCommand> {
        let waits = dice.one_in(2);
        let mut fields = self.place_fields(place);
        fields.extend([
            ("queueOffset", from.to_string()),
            ("maxMsgNums", dice.between(1, 32).to_string()),
            ("sysFlag", (WITH_SUBSCRIPTION + if waits { MAY_WAIT } else { 0 }).to_string()),
            ("commitOffset", "0".to_owned()),
            ("suspendTimeoutMillis", dice.between(100, 2_000).to_string()),
            ("subscription", "*".to_owned()),
            ("subVersion", "1".to_owned()),
            ("expressionType", "TAG".to_owned()),
        ]);
        self.connection.call(PULL_MESSAGE, fields, b"").await
    }

    async fn consume(&mut self, dice: &mut Dice, place: &Place, from: u64, reply: &RemotingCommand) -> bool {
        let found = messages(&reply.body);
        let next = number(reply, "nextBeginOffset").unwrap_or(from);
        self.world.judge_pull(&self.group, place, from, next, &found);
        for message in &found {
            if dice.one_in(60) && self.world.is_chaos() && !self.send_back(message).await {
                return false;
            }
        }
        self.next.insert(place.clone(), next);
        if dice.one_in(3) { self.report(dice, place, next).await } else { true }
    }

    async fn report(&self, dice: &mut Dice, place: &Place, offset: u64) -> bool {
        let mut fields = self.place_fields(place);
        fields.push(("commitOffset", offset.to_string()));
        let asked_ms = self.world.reporting(&self.group, place, offset);
        if dice.one_in(2) {
            let request = self.connection.request(UPDATE_CONSUMER_OFFSET, fields, b"").oneway();
            self.connection.post(&[request]);
            return true;
        }
        let reply = self.connection.call(UPDATE_CONSUMER_OFFSET, fields, b"").await;
        if reply.as_ref().is_some_and(|reply| reply.code == SUCCESS) {
            self.world.reported(&self.group, place, offset, asked_ms);
        }
        reply.is_some()
    }

    async fn send_back(&self, message: &Message) -> bool {
        let fields: Fields = vec![
            ("offset", message.physical_offset.to_string()),
            ("group", self.group.clone()),
            ("delayLevel", "1".to_owned()),
            ("originMsgId", message.key.clone().unwrap_or_default()),
            ("originTopic", message.topic.clone()),
            ("unitMode", "false".to_owned()),
            ("maxReconsumeTimes", "3".to_owned()),
        ];
        self.world.sending_back(&self.group, message);
        let reply = self.connection.call(SEND_BACK, fields, b"").await;
        if reply.as_ref().is_some_and(|reply| reply.code == SUCCESS) {
            self.world.sent_back(&self.group, message);
        }
        reply.is_some()
    }
}
