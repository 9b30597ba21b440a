//! What retention needs to know of each segment: how many of its messages are open, how many bytes carrying them
//! forward would write, and when the last of the others became visible.
//!
//! Counted by the fold. A checkpoint holds the counts and the times; what is open is counted again from the rows it
//! holds, and has to come to the same.

use std::collections::BTreeMap;

/// What a message grows by, at most, when it is carried forward: the prefix of a `carried` record.
const CARRIED_PREFIX_BYTES: u64 = 32;

/// Summary of one segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentSummary {
    /// Half and delayed messages in it that are not visible yet.
    pub(crate) open: u64,
    /// Most bytes that carrying them writes, but for the headers of frames.
    pub(crate) open_bytes: u64,
    /// Newest visible_at of a message in it, milliseconds.
    pub(crate) newest_visible_ms: u64,
}

/// Summaries by segment number.
#[derive(Debug)]
pub(crate) struct Segments {
    segment_bytes: u64,
    by_number: BTreeMap<u64, SegmentSummary>,
    /// `open_bytes` of all of them.
    open_bytes: u64,
}

impl Segments {
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes: segment_bytes.max(1), by_number: BTreeMap::new(), open_bytes: 0 }
    }

    fn at(&mut self, position: u64) -> &mut SegmentSummary {
        self.by_number.entry(position / self.segment_bytes).or_default()
    }

    /// A message whose record of `size` bytes stands at `location` is open.
    pub(crate) fn opened(&mut self, location: u64, size: u32) {
        let bytes = u64::from(size) + CARRIED_PREFIX_BYTES;
        let summary = self.at(location);
        summary.open += 1;
        summary.open_bytes += bytes;
        self.open_bytes += bytes;
    }

    /// It is no longer, or no longer there.
    pub(crate) fn closed(&mut self, location: u64, size: u32) {
        let bytes = u64::from(size) + CARRIED_PREFIX_BYTES;
        let summary = self.at(location);
        summary.open = summary.open.saturating_sub(1);
        summary.open_bytes = summary.open_bytes.saturating_sub(bytes);
        self.open_bytes = self.open_bytes.saturating_sub(bytes);
    }

    pub(crate) fn visible(&mut self, location: u64, at_ms: u64) {
        let summary = self.at(location);
        summary.newest_visible_ms = summary.newest_visible_ms.max(at_ms);
    }

    pub(crate) fn get(&self, position: u64) -> SegmentSummary {
        self.by_number.get(&(position / self.segment_bytes)).copied().unwrap_or_default()
    }

    /// Bytes that carrying every open message would write.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, SegmentSummary)> + '_ {
        self.by_number.iter().map(|(number, summary)| (*number, *summary))
    }

    /// Puts back what a checkpoint says of a segment whose open messages are counted already; false if there are not
    /// as many as it says.
    pub(crate) fn restore(&mut self, number: u64, open: u64, newest_visible_ms: u64) -> bool {
        let summary = self.by_number.entry(number).or_default();
        summary.newest_visible_ms = newest_visible_ms;
        summary.open == open
    }

    /// Forgets segments before this position.
    pub(crate) fn drop_before(&mut self, position: u64) {
        let kept = self.by_number.split_off(&(position / self.segment_bytes));
        let gone = std::mem::replace(&mut self.by_number, kept);
        let bytes: u64 = gone.values().map(|summary| summary.open_bytes).sum();
        self.open_bytes = self.open_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_where_it_stands_and_as_a_whole() {
        let mut segments = Segments::new(1000);
        segments.opened(10, 100);
        segments.opened(20, 200);
        segments.opened(1500, 50);
        assert_eq!(segments.open_bytes(), 132 + 232 + 82);
        segments.closed(10, 100);
        segments.opened(1600, 140);
        segments.visible(30, 7);
        let front = SegmentSummary { open: 1, open_bytes: 232, newest_visible_ms: 7 };
        assert_eq!(segments.get(999), front);
        assert_eq!(segments.get(1000).open, 2);
        segments.drop_before(1000);
        assert_eq!(segments.open_bytes(), 82 + 172);
        assert_eq!(segments.get(0), SegmentSummary::default());
    }
}
