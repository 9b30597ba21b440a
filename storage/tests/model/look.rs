//! Looks at everything that a store shows, and compares it with the model: at a little of it after each step, at all of
//! it from time to time and after each start.

use mezzo_protocol::ids::{PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::message::record::MessageView;
use mezzo_storage::{OpenFilter, OpenState, StorageError, Store, StoredMessage};

use super::model::{Consumed, HORIZON_MS, same};
use super::names::{client_name, consumer_name, producer_name, topic_name};
use super::policies::GROUP_POLICIES;
use super::run::{Run, Stop};
use super::steps::{CONSUMERS, TOPICS};

/// Decisions that one look asks for.
const DECISIONS: usize = 40;

fn body_of(message: &StoredMessage) -> Result<String, String> {
    let view = MessageView::parse(&message.bytes).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(view.body()).into_owned())
}

impl Run {
    /// What may change with every step.
    pub(super) fn glance(&mut self) -> Result<(), Stop> {
        let store = self.store();
        same("open messages", &store.open_messages(), &self.model.open_messages())?;
        for topic in 0..TOPICS {
            let Some(there) = store.topic(&topic_name(topic)) else { continue };
            for queue in there.queues() {
                let key = (topic, queue.id().0 as u8);
                let model = self.model.queues.get(&key);
                let shown = model.map(|queue| (queue.first, queue.shown));
                let got = (queue.min_offset().0, queue.max_offset().0);
                // what is not shown yet may be deleted from the model's front, never from the store's
                let want = shown.map(|(first, shown)| (first.min(shown), shown));
                // behind a jump there is a gap that the front may stand in
                let in_gap = model.is_some_and(|queue| queue.gap_before_first(got.0) && got.1 == queue.shown);
                if !in_gap {
                    same(&format!("the ends of queue {key:?}"), &Some(got), &want)?;
                }
            }
        }
        Ok(())
    }

    /// Everything.
    pub(super) fn look(&mut self) -> Result<(), Stop> {
        let store = self.store();
        let topics: Vec<u8> = (0..TOPICS).filter(|t| store.topic(&topic_name(*t)).is_some()).collect();
        same("topics", &topics, &self.model.topics.keys().copied().collect())?;
        for topic in topics {
            self.look_at_topic(&store, topic)?;
        }
        self.look_at_open(&store)?;
        self.look_at_decided(&store)?;
        self.look_at_consumers(&store)?;
        let next_due = store.next_due_at().map(|at| at.as_ms());
        let want = self.model.due.keys().next().map(|(at, _)| self.wall(*at).as_ms());
        same("the next delayed message", &next_due, &want)?;
        self.glance()
    }

    /// Where each message stands that became visible after it may have been carried: behind where it was written.
    pub(super) fn find_places(&mut self, store: &Store) -> Result<(), Stop> {
        let topics: Vec<u8> = self.model.topics.keys().copied().collect();
        for there in topics.into_iter().filter_map(|topic| Some((topic, store.topic(&topic_name(topic))?))) {
            for queue in there.1.queues() {
                let key = (there.0, queue.id().0 as u8);
                for model in [&mut self.model, &mut self.durable] {
                    let Some(known) = model.queues.get_mut(&key) else { continue };
                    for entry in known.entries.iter_mut().filter(|entry| !entry.seen) {
                        let at = QueueOffset(entry.offset);
                        let read = store.read_entries(&queue, at, 1, &mut |_| true);
                        let read = read.map_err(|e| e.to_string())?.entries;
                        let Some((_, there)) = read.first().filter(|(at, _)| *at == entry.offset) else {
                            continue;
                        };
                        if there.position < entry.position {
                            let (now, before) = (there.position, entry.position);
                            return Err(format!("{} of {before} is at {now}", entry.body).into());
                        }
                        (entry.position, entry.seen) = (there.position, true);
                    }
                }
            }
        }
        Ok(())
    }

    fn look_at_topic(&mut self, store: &Store, topic: u8) -> Result<(), Stop> {
        self.find_places(store)?;
        let Some(there) = store.topic(&topic_name(topic)) else { return Ok(()) };
        same("queues announced", &there.config().write_queues, &u32::from(self.model.topics[&topic]))?;
        let open = self.model.open_in(topic) as u64;
        same(&format!("open messages of topic {topic}"), &there.open_messages(), &open)?;
        for queue in there.queues() {
            let key = (topic, queue.id().0 as u8);
            let Some(model) = self.model.queues.get(&key) else {
                return Err(format!("queue {key:?} should not exist").into());
            };
            let read = store.read_entries(&queue, QueueOffset(model.first), usize::MAX, &mut |_| true);
            let entries = read.map_err(|e| e.to_string())?.entries;
            let got: Vec<_> = entries.iter().map(|(at, e)| (*at, e.position, e.visible_at_ms)).collect();
            let want = model.entries.iter().filter(|e| e.offset < model.shown);
            let want: Vec<_> = want.map(|e| (e.offset, e.position, e.at_ms)).collect();
            same(&format!("messages of queue {key:?}"), &got, &want)?;
            let read_before = self.read.get(&key).copied().unwrap_or(0);
            for ((offset, entry), want) in entries.iter().zip(&model.entries) {
                let gone = want.position < self.model.first_position;
                if *offset < read_before && !gone {
                    continue;
                }
                match store.read_message(entry) {
                    Ok(message) if !gone => {
                        same(&format!("message {offset} of {key:?}"), &body_of(&message)?, &want.body)?;
                    }
                    Err(StorageError::Gone { .. }) if gone => {}
                    Ok(_) => {
                        return Err(format!("message {offset} of {key:?} is read, though deleted").into());
                    }
                    Err(error) => return Err(format!("message {offset} of {key:?}: {error}").into()),
                }
            }
            let shown = model.shown;
            self.read.insert(key, shown);
        }
        Ok(())
    }

    fn look_at_open(&mut self, store: &Store) -> Result<(), Stop> {
        let all = OpenFilter::default();
        let open = store.open_transactions_page(&all, self.time(), None, usize::MAX);
        let got: Vec<_> = open
            .iter()
            .map(|details| {
                let t = &details.transaction;
                let place = details.queue.as_ref().map(|(topic, queue)| (topic.to_string(), queue.0));
                let times = (t.prepared_at.as_ms(), details.asked_at.map(|at| at.as_ms()));
                (t.origin.0, t.producer_group.to_string(), t.state, t.asks, place, times)
            })
            .collect();
        let want: Vec<_> = self
            .model
            .open
            .iter()
            .map(|(origin, open)| {
                let state = if open.in_doubt { OpenState::InDoubt } else { OpenState::Prepared };
                let to = open.messages[0].to;
                let place = Some((topic_name(to.topic), u32::from(to.queue)));
                let times = (open.prepared_ms, (open.asks > 0).then_some(open.touched_ms));
                (*origin, producer_name(open.name.group()).to_string(), state, open.asks, place, times)
            })
            .collect();
        same("open transactions", &got, &want)?;
        for (origin, open) in &self.model.open {
            let half = store.half_message(PhysicalOffset(*origin)).map_err(|e| e.to_string())?;
            let half = half.ok_or_else(|| format!("{origin} has no message"))?;
            same("a half message", &body_of(&half)?, &open.messages[0].body)?;
        }
        let in_doubt = self.model.open.values().filter(|open| open.in_doubt).count();
        same("how many are in doubt", &store.in_doubt(), &in_doubt)?;
        for group in 0..2 {
            let policy = self.model.policies.get(&group).map(|which| GROUP_POLICIES[usize::from(*which)]);
            same("a group's policy", &store.check_policy(&producer_name(group)), &policy)?;
            let got = store.in_doubt_of_group(producer_name(group).as_str(), usize::MAX);
            let want = self.model.open.iter().filter(|(_, o)| o.in_doubt && o.name.group() == group);
            let want: Vec<_> = want.map(|(origin, _)| PhysicalOffset(*origin)).collect();
            same("what is in doubt", &got, &want)?;
        }
        Ok(())
    }

    /// The newest decisions, and some of the older ones.
    fn look_at_decided(&mut self, store: &Store) -> Result<(), Stop> {
        let every = self.model.decided.len().div_ceil(DECISIONS).max(1);
        let newest = self.model.decided.iter().rev().take(DECISIONS);
        let decided: Vec<_> = newest.chain(self.model.decided.iter().step_by(every)).collect();
        let mut expired = 0;
        for (origin, decided) in decided {
            let found = store.transaction_record(PhysicalOffset(*origin)).map_err(|e| e.to_string())?;
            let found = found.and_then(|record| record.decision);
            let old = decided.at_ms + HORIZON_MS < self.now && decided.position < self.model.first_position;
            if found.is_none() && old {
                expired += 1;
                continue;
            }
            same(&format!("what was decided about {origin}"), &found, &Some(decided.decision(*origin)))?;
        }
        *self.seen.entry("decision expired").or_default() += expired;
        Ok(())
    }

    fn look_at_consumers(&mut self, store: &Store) -> Result<(), Stop> {
        for group in 0..CONSUMERS {
            let got = store.offsets_of(consumer_name(group).as_str());
            let mut got: Vec<_> =
                got.iter().map(|(topic, queue, at)| (topic.to_string(), queue.0, at.0)).collect();
            got.sort();
            let of = |key: &Consumed| (topic_name(key.1), u32::from(key.2));
            let told = self.model.offsets.told.iter().filter(|(key, _)| key.0 == group);
            let want: Vec<_> = told.map(|(key, offset)| (of(key).0, of(key).1, *offset)).collect();
            same(&format!("offsets of group {group}"), &got, &want)?;
        }
        for (topic, queue) in self.model.queues.keys() {
            for group in 0..CONSUMERS {
                let Some(there) = store.topic(&topic_name(*topic)) else { continue };
                let got = store.lease(consumer_name(group).as_str(), there.name(), QueueId((*queue).into()));
                let got = got.map(|l| (l.client, l.epoch, l.expires_at.as_ms(), l.released));
                let want = self.model.leases_told.get(&(group, *topic, *queue));
                let want = want.map(|l| (client_name(l.client), l.epoch, l.expires_ms, l.released));
                same(&format!("the lease of {topic}/{queue} for group {group}"), &got, &want)?;
            }
        }
        Ok(())
    }
}
