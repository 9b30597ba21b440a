//! Producer groups as small numbers, so that a row needs four bytes for its group. Counted: a group without open
//! transactions takes no memory, whatever names clients make up.

use std::collections::HashMap;

use mezzo_protocol::ids::GroupName;

/// Number of a producer group with open transactions.
pub(crate) type GroupSymbol = u32;

/// The numbering.
#[derive(Debug, Default)]
pub(crate) struct GroupSymbols {
    by_name: HashMap<GroupName, GroupSymbol>,
    names: Vec<Option<(GroupName, u64)>>,
    free: Vec<GroupSymbol>,
}

impl GroupSymbols {
    /// The group's number, with one more transaction counted.
    pub(crate) fn acquire(&mut self, name: &GroupName) -> GroupSymbol {
        if let Some(symbol) = self.by_name.get(name) {
            if let Some(Some((_, count))) = self.names.get_mut(*symbol as usize) {
                *count += 1;
            }
            return *symbol;
        }
        let symbol = self.free.pop().unwrap_or_else(|| {
            self.names.push(None);
            u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.names.get_mut(symbol as usize) {
            *slot = Some((name.clone(), 1));
        }
        self.by_name.insert(name.clone(), symbol);
        symbol
    }

    /// One transaction fewer.
    pub(crate) fn release(&mut self, symbol: GroupSymbol) {
        let Some(slot) = self.names.get_mut(symbol as usize) else { return };
        let Some((name, count)) = slot else { return };
        *count -= 1;
        if *count == 0 {
            self.by_name.remove(name.as_str());
            *slot = None;
            self.free.push(symbol);
        }
    }

    /// The number of a group that has open transactions.
    pub(crate) fn find(&self, name: &str) -> Option<GroupSymbol> {
        self.by_name.get(name).copied()
    }

    /// The group's name.
    pub(crate) fn name(&self, symbol: GroupSymbol) -> Option<&GroupName> {
        self.names.get(symbol as usize).and_then(Option::as_ref).map(|(name, _)| name)
    }
}
