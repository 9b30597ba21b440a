//! Any text where users write one: tag filters, check-back policies, names, properties, message ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::check_policy::{CheckPolicy, CheckWish};
use mezzo_protocol::ids::{GroupName, OffsetMessageId, TopicName};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::tag::{TagFilter, tag_hash};

fuzz_target!(|text: &str| {
    if let Ok(filter) = TagFilter::parse(text) {
        // what is written again filters the same
        let again = TagFilter::parse(&filter.expression()).expect("a filter writes a filter");
        let tags = text.split("||").map(|tag| Some(tag.trim()));
        for tag in tags.chain([None, Some("other")]) {
            assert_eq!(filter.matches_tag(tag), again.matches_tag(tag));
            // the hash may let more through, never less
            assert!(!filter.matches_tag(tag) || filter.matches_hash(tag_hash(tag)));
        }
    }
    if let Ok(wish) = CheckWish::parse(text) {
        let policy = wish.over(&CheckPolicy::default());
        let mut last = 0;
        for asks in 0..50 {
            let wait = policy.next_ask_after_ms(asks);
            assert!(asks < 2 || wait >= last, "the back-off falls");
            last = wait;
        }
    }
    let _ = (TopicName::new(text), GroupName::new(text));
    if let Ok(id) = OffsetMessageId::decode(text) {
        assert_eq!(OffsetMessageId::decode(&id.encode()), Ok(id));
    }
    let entries: Vec<_> = properties::iter(text).collect();
    if let Ok(written) = properties::encode(entries.iter().copied()) {
        let again: Vec<_> = properties::iter(&written).collect();
        assert_eq!(again, entries);
    }
    let _ = properties::without(text, &["TAGS", "KEYS"]);
});
