//! Brokers that failed a moment ago: senders spare them while another broker can take the message.

use std::collections::HashMap;
use std::sync::Arc;

use mezzo_protocol::time::Timestamp;

/// Most brokers remembered; a cluster has far fewer. Past it the broker that is spared for the shortest time is forgotten.
const BROKERS_MAX: usize = 256;

/// Until when each failing broker is spared.
#[derive(Debug, Default)]
pub(crate) struct BrokerFaults {
    spared: HashMap<Arc<str>, Timestamp>,
}

impl BrokerFaults {
    /// A request to `broker` failed: spare it until `until`.
    pub(crate) fn failed(&mut self, broker: &Arc<str>, until: Timestamp) {
        if self.spared.len() >= BROKERS_MAX && !self.spared.contains_key(broker) {
            let soonest =
                self.spared.iter().min_by_key(|(_, until)| **until).map(|(name, _)| Arc::clone(name));
            if let Some(soonest) = soonest {
                self.spared.remove(&soonest);
            }
        }
        self.spared.insert(Arc::clone(broker), until);
    }

    /// `broker` answered: it is as good as any other again.
    pub(crate) fn answered(&mut self, broker: &str) {
        if !self.spared.is_empty() {
            self.spared.remove(broker);
        }
    }

    /// Whether `broker` should be passed over at `now` if there is another.
    pub(crate) fn is_spared(&self, broker: &str, now: Timestamp) -> bool {
        self.spared.get(broker).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_broker_is_spared_until_its_time_or_its_next_answer() {
        let mut faults = BrokerFaults::default();
        let broker: Arc<str> = "a".into();
        faults.failed(&broker, Timestamp::from_ms(100));
        assert!(faults.is_spared("a", Timestamp::from_ms(99)));
        assert!(!faults.is_spared("a", Timestamp::from_ms(100)));
        assert!(!faults.is_spared("b", Timestamp::from_ms(0)));
        faults.answered("a");
        assert!(!faults.is_spared("a", Timestamp::from_ms(0)));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut faults = BrokerFaults::default();
        for index in 0..2_000_u64 {
            faults.failed(&format!("broker-{index}").into(), Timestamp::from_ms(index));
        }
        assert_eq!(faults.spared.len(), BROKERS_MAX);
        assert!(faults.is_spared("broker-1999", Timestamp::ZERO));
    }
}
