//! Sends that count once: by an id, within a window, whatever happens in between.

use mezzo_protocol::ids::{PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{DedupRule, FirstAnswer, OperationResult, SendFacts};

use super::model::{At, Hidden, Model, same};
use super::names::topic_name;
use super::rules::Op;
use super::run::{Run, Stop};
use super::steps::Place;

/// How long a send is known by its id.
pub const WINDOW_MS: u64 = 20_000;

/// The newest send of an id that was no repeat.
#[derive(Debug, Clone)]
pub struct First {
    pub to: Place,
    pub position: u64,
    pub at_ms: u64,
}

/// How an id is written.
pub fn id_text(id: u8) -> String {
    format!("o{id:03}")
}

impl Model {
    fn first_send(&self, topic: u8, id: u8, now: u64) -> Option<&First> {
        self.firsts.get(&(topic, id)).filter(|first| first.at_ms + WINDOW_MS >= now)
    }

    /// A send with an id whose sender has looked for the first one among what stood below `looked_to`.
    pub(super) fn sent_once(
        &mut self,
        (to, body, id): (Place, &str, u8),
        looked_to: u64,
        got: &OperationResult,
        at: At,
    ) -> Result<(), String> {
        let first = self.first_send(to.topic, id, at.now).filter(|first| first.position >= looked_to);
        if let Some(first) = first {
            let position = PhysicalOffset(first.position);
            return same("the answer to a repeat", got, &OperationResult::Repeats { position });
        }
        let OperationResult::Stored { position, .. } = got else {
            return Err(format!("{body} is not stored: {got:?}"));
        };
        let hidden = Hidden { position: position.0, to, body: body.to_owned(), delay_ms: None };
        let queue_offset = QueueOffset(self.show(hidden, at));
        self.firsts.insert((to.topic, id), First { to, position: position.0, at_ms: at.now });
        same("the answer to a send", got, &OperationResult::Stored { queue_offset, position: *position })
    }

    /// What a repeat of it is answered with; `None` once retention has deleted it.
    fn answer_of(&self, first: &First) -> Option<FirstAnswer> {
        let Place { topic, queue } = first.to;
        let entries = &self.queues.get(&(topic, queue))?.entries;
        let entry = entries.iter().find(|entry| entry.position == first.position)?;
        let (queue_offset, position) = (QueueOffset(entry.offset), PhysicalOffset(first.position));
        let result = OperationResult::Stored { queue_offset, position };
        Some(FirstAnswer { queue: QueueId(queue.into()), result })
    }
}

impl Run {
    /// Looks for the first send of an id, as whoever sends does; true if this one repeats it.
    pub(super) fn repeats(&mut self, op: &Op) -> Result<bool, Stop> {
        let Op::SendOnce { to, id, .. } = op else { return Ok(false) };
        let store = self.store();
        let (topic, text) = (topic_name(to.topic), id_text(*id));
        let sends = store.first_sends();
        let key = sends.key(&SendFacts::Explicit { topic: &topic, id: &text });
        let found = sends.find(key, Timestamp::from_ms(self.now)).map(|first| first.position);
        let want = self.model.first_send(to.topic, *id, self.now).cloned();
        if let Some(want) = &want {
            same("the first send of an id", &found, &Some(PhysicalOffset(want.position)))?;
        }
        let Some(found) = found else { return Ok(false) };
        self.sync()?;
        let answer = store.first_answer(found, key, DedupRule::Strict).map_err(|e| self.stop(e))?;
        // one whose topic was deleted since may still be found, and has no answer
        let right = want.and_then(|want| self.model.answer_of(&want));
        same("what a repeat is answered with", &answer, &right)?;
        if answer.is_some() {
            self.count("a repeat that is answered as the first one");
        }
        Ok(answer.is_some())
    }
}
