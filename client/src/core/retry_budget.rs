//! A budget for retries, so that a struggling broker is not finished off by its clients' second attempts.

/// Units that one retry costs; a success pays [`RetryBudget::deposit`] of them back.
const RETRY_COST: u32 = 10;

/// Counts retries against successes: at most `capacity` retries in a burst, later one per ten successes.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    units: u32,
    units_max: u32,
}

impl RetryBudget {
    /// A full budget for a burst of `capacity` retries.
    pub(crate) const fn new(capacity: u32) -> Self {
        let units_max = capacity.saturating_mul(RETRY_COST);
        Self { units: units_max, units_max }
    }

    /// A request succeeded: one tenth of a retry more.
    pub(crate) const fn deposit(&mut self) {
        if self.units < self.units_max {
            self.units += 1;
        }
    }

    /// Takes one retry out of the budget; `false` if there is none left.
    pub(crate) const fn withdraw(&mut self) -> bool {
        if self.units < RETRY_COST {
            return false;
        }
        self.units -= RETRY_COST;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_ten_successes_buy_one_retry() {
        let mut budget = RetryBudget::new(2);
        assert!(budget.withdraw() && budget.withdraw());
        assert!(!budget.withdraw());
        for _ in 0..9 {
            budget.deposit();
        }
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
    }

    #[test]
    fn a_budget_never_grows_beyond_its_burst() {
        let mut budget = RetryBudget::new(1);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }
}
