//! Refused requests by response code: a counter for each code that this broker gives, found by a look through a short
//! list, which only refusals pay for.

use super::Counter;

/// Codes that tell of a refusal, with RocketMQ's names: what this broker can answer, except what says how a pull went.
const CODES: [(i32, &str); 20] = [
    (1, "SYSTEM_ERROR"),
    (2, "SYSTEM_BUSY"),
    (3, "REQUEST_CODE_NOT_SUPPORTED"),
    (13, "MESSAGE_ILLEGAL"),
    (14, "SERVICE_NOT_AVAILABLE"),
    (15, "VERSION_NOT_SUPPORTED"),
    (16, "NO_PERMISSION"),
    (17, "TOPIC_NOT_EXIST"),
    (18, "TOPIC_EXIST_ALREADY"),
    (22, "QUERY_NOT_FOUND"),
    (23, "SUBSCRIPTION_PARSE_FAILED"),
    (24, "SUBSCRIPTION_NOT_EXIST"),
    (25, "SUBSCRIPTION_NOT_LATEST"),
    (26, "SUBSCRIPTION_GROUP_NOT_EXIST"),
    (29, "INVALID_PARAMETER"),
    (206, "CONSUMER_NOT_ONLINE"),
    (208, "NO_MESSAGE"),
    (209, "POLLING_FULL"),
    (215, "FLOW_CONTROL"),
    (604, "ILLEGAL_OPERATION"),
];

/// Done, and the three codes of a pull that brings no message: the queue ends here, the filter took none, the offset is
/// elsewhere. They are part of consuming.
const NO_REFUSAL: [i32; 4] = [0, 19, 20, 21];

/// The name that all other codes are counted under.
const OTHERS: &str = "OTHER";

/// One counter per code.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_code: [Counter; CODES.len()],
    others: Counter,
}

impl Refusals {
    /// An answer with this code is written.
    pub(crate) fn answered(&self, code: i32) {
        if NO_REFUSAL.contains(&code) {
            return;
        }
        let place = CODES.iter().position(|(known, _)| *known == code);
        place.and_then(|place| self.by_code.get(place)).unwrap_or(&self.others).add(1);
    }

    /// How many of each code, by name.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let known = CODES.iter().zip(&self.by_code).map(|((_, name), counter)| (*name, counter.value()));
        known.chain([(OTHERS, self.others.value())])
    }
}

#[cfg(test)]
mod tests {
    use mezzo_protocol::remoting::response_code::ResponseCode;

    use super::*;

    fn counted(refusals: &Refusals) -> Vec<(&'static str, u64)> {
        refusals.counts().filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn names_are_those_of_the_protocol() {
        for (code, name) in CODES {
            assert_eq!(ResponseCode(code).name(), name);
        }
    }

    #[test]
    fn a_pull_without_messages_is_no_refusal_and_an_unknown_code_is_counted_with_others() {
        let refusals = Refusals::default();
        for code in [0, 19, 20, 21, 2, 2, 604, 12_345] {
            refusals.answered(code);
        }
        assert_eq!(counted(&refusals), [("SYSTEM_BUSY", 2), ("ILLEGAL_OPERATION", 1), ("OTHER", 1)]);
    }
}
