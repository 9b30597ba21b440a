//! What rows refer to by number: queues, producer groups, parts of check-back policies.
//!
//! ```text
//! queue count u32, per queue: topic string, queue u32;  group count u32, per group: string;
//! count u32 of parts of check-back policies, per such: string (as in `MEZZO_CHECK`; numbered from 1, 0: none)
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use mezzo_protocol::check_policy::CheckWish;
use mezzo_protocol::ids::{GroupName, QueueId};

use super::{format_error, invalid};
use crate::error::StorageError;
use crate::format::cursor::{Cursor, put_string};
use crate::state::ledger::Ledger;
use crate::state::topics::Queue;

/// Numbers given out while rows are written.
#[derive(Default)]
pub(super) struct Numbering {
    queues: Vec<u32>,
    queue_numbers: HashMap<u32, u32>,
    groups: Vec<GroupName>,
    group_numbers: HashMap<GroupName, u32>,
    wishes: Vec<CheckWish>,
    wish_numbers: HashMap<CheckWish, u32>,
}

impl Numbering {
    /// The number of a queue in the file, by its symbol in the ledger.
    pub(super) fn queue(&mut self, symbol: u32) -> u32 {
        *self.queue_numbers.entry(symbol).or_insert_with(|| {
            self.queues.push(symbol);
            (self.queues.len() - 1) as u32
        })
    }

    pub(super) fn group(&mut self, name: &GroupName) -> u32 {
        if let Some(number) = self.group_numbers.get(name) {
            return *number;
        }
        let number = self.groups.len() as u32;
        self.groups.push(name.clone());
        self.group_numbers.insert(name.clone(), number);
        number
    }

    /// 0: none.
    pub(super) fn wish(&mut self, wish: Option<CheckWish>) -> u32 {
        let Some(wish) = wish else { return 0 };
        *self.wish_numbers.entry(wish).or_insert_with(|| {
            self.wishes.push(wish);
            self.wishes.len() as u32
        })
    }

    pub(super) fn encode(&self, ledger: &Ledger, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.queues.len() as u32).to_le_bytes());
        for symbol in &self.queues {
            let queue = ledger.registry.get(*symbol);
            put_string(out, queue.map_or("", |q| q.topic().as_str()));
            out.extend_from_slice(&queue.map_or(0, |q| q.id().0).to_le_bytes());
        }
        out.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        for group in &self.groups {
            put_string(out, group.as_str());
        }
        out.extend_from_slice(&(self.wishes.len() as u32).to_le_bytes());
        for wish in &self.wishes {
            put_string(out, &wish.to_string());
        }
    }
}

/// The names of a file, resolved against the ledger's topics.
pub(super) struct Names {
    queues: Vec<Arc<Queue>>,
    groups: Vec<GroupName>,
    wishes: Vec<CheckWish>,
}

impl Names {
    pub(super) fn decode(ledger: &Ledger, cursor: &mut Cursor<'_>) -> Result<Self, StorageError> {
        let bad = format_error("names");
        let count = cursor.u32().map_err(&bad)? as usize;
        let mut queues = Vec::with_capacity(cursor.capacity_for(count, 6));
        for _ in 0..count {
            let topic = cursor.string("topic").map_err(&bad)?;
            let id = QueueId(cursor.u32().map_err(&bad)?);
            let queue = ledger.topics.get(topic).and_then(|t| t.queue(id));
            queues.push(queue.ok_or_else(|| invalid("names", format!("unknown queue {topic}/{}", id.0)))?);
        }
        let count = cursor.u32().map_err(&bad)? as usize;
        let mut groups = Vec::with_capacity(cursor.capacity_for(count, 2));
        for _ in 0..count {
            let name = cursor.string("group").map_err(&bad)?;
            groups.push(GroupName::new(name).map_err(|e| invalid("names", e))?);
        }
        let count = cursor.u32().map_err(&bad)? as usize;
        let mut wishes = Vec::with_capacity(cursor.capacity_for(count, 2));
        for _ in 0..count {
            let text = cursor.string("check-back policy").map_err(&bad)?;
            wishes.push(CheckWish::parse(text).map_err(|e| invalid("names", e))?);
        }
        Ok(Self { queues, groups, wishes })
    }

    pub(super) fn queue(&self, number: u32) -> Result<&Arc<Queue>, StorageError> {
        self.queues.get(number as usize).ok_or_else(|| invalid("names", format!("no queue number {number}")))
    }

    pub(super) fn wish(&self, number: u32) -> Result<Option<&CheckWish>, StorageError> {
        let Some(index) = (number as usize).checked_sub(1) else { return Ok(None) };
        let wish = self.wishes.get(index);
        wish.map(Some).ok_or_else(|| invalid("names", format!("no check-back policy number {number}")))
    }

    pub(super) fn group(&self, number: u32) -> Result<&GroupName, StorageError> {
        self.groups.get(number as usize).ok_or_else(|| invalid("names", format!("no group number {number}")))
    }
}
