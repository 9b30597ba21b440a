//! What retention needs to know of each segment: how many of its messages are open, and when the last of them became
//! visible.

use std::collections::BTreeMap;

/// Summary of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentSummary {
    /// Half and delayed messages in it that are not visible yet.
    pub(crate) open: u64,
    /// Newest visible_at of a message in it, milliseconds.
    pub(crate) newest_visible_ms: u64,
}

/// Summaries by segment number.
#[derive(Debug)]
pub(crate) struct Segments {
    segment_bytes: u64,
    by_number: BTreeMap<u64, SegmentSummary>,
}

impl Segments {
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes: segment_bytes.max(1), by_number: BTreeMap::new() }
    }

    fn at(&mut self, position: u64) -> &mut SegmentSummary {
        self.by_number.entry(position / self.segment_bytes).or_default()
    }

    pub(crate) fn opened(&mut self, location: u64) {
        self.at(location).open += 1;
    }

    pub(crate) fn closed(&mut self, location: u64) {
        let summary = self.at(location);
        summary.open = summary.open.saturating_sub(1);
    }

    pub(crate) fn visible(&mut self, location: u64, at_ms: u64) {
        let summary = self.at(location);
        summary.newest_visible_ms = summary.newest_visible_ms.max(at_ms);
    }

    pub(crate) fn get(&self, position: u64) -> SegmentSummary {
        self.by_number.get(&(position / self.segment_bytes)).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, number: u64, summary: SegmentSummary) {
        self.by_number.insert(number, summary);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, SegmentSummary)> + '_ {
        self.by_number.iter().map(|(n, s)| (*n, *s))
    }

    /// Forgets segments before this position.
    pub(crate) fn drop_before(&mut self, position: u64) {
        self.by_number = self.by_number.split_off(&(position / self.segment_bytes));
    }
}
