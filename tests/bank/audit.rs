//! Everything that must agree once all is settled. Pure, so that doctored books show that it can fail.

use std::collections::{BTreeMap, BTreeSet};

use crate::accounts::{ACCOUNTS, Credit, INITIAL};
use crate::journal::Entry;
use crate::ledger::Recorded;
use crate::producer::{COMMITTED, CONFLICT, FENCED, ROLLED_BACK};
use crate::transfer::Transfer;

/// The state of everything at the end of a run.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    /// Balances of the first database.
    pub(crate) debit_balances: BTreeMap<i64, i64>,
    /// Balances of the second one.
    pub(crate) credit_balances: BTreeMap<i64, i64>,
    pub(crate) debits: Vec<Transfer>,
    pub(crate) credits: Vec<Credit>,
    /// Reasons of the barrier rows of sending, by message key.
    pub(crate) sending: BTreeMap<String, String>,
    /// Reasons of the barrier rows of processing, by message key.
    pub(crate) processing: BTreeMap<String, String>,
    /// The broker's log.
    pub(crate) recorded: Vec<Recorded>,
    /// Origins that the broker lists as open.
    pub(crate) open: Vec<u64>,
    /// What the processes were told.
    pub(crate) journal: Vec<Entry>,
}

impl Books {
    /// What is wrong, in words; empty if nothing is.
    pub(crate) fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.sum(&mut wrong);
        self.balances(&mut wrong);
        self.debits_and_credits(&mut wrong);
        self.decisions(&mut wrong);
        self.promises(&mut wrong);
        wrong
    }

    /// Both databases together hold what they held at first: nothing is in flight any more.
    fn sum(&self, wrong: &mut Vec<String>) {
        let sum: i64 = self.debit_balances.values().chain(self.credit_balances.values()).sum();
        let expected = 2 * ACCOUNTS * INITIAL;
        if sum != expected {
            wrong.push(format!("all accounts hold {sum}, {} more than at first", sum - expected));
        }
    }

    /// Each account holds what its debits or credits say.
    fn balances(&self, wrong: &mut Vec<String>) {
        let mut expected: [BTreeMap<i64, i64>; 2] =
            [0, 1].map(|_| (0..ACCOUNTS).map(|id| (id, INITIAL)).collect());
        for debit in &self.debits {
            *expected[0].entry(debit.from).or_default() -= debit.amount;
        }
        for credit in &self.credits {
            *expected[1].entry(credit.to).or_default() += credit.amount;
        }
        for (side, held, expected) in
            [("debit", &self.debit_balances, &expected[0]), ("credit", &self.credit_balances, &expected[1])]
        {
            if held != expected {
                wrong.push(format!("the {side} accounts hold {held:?}, their rows make {expected:?}"));
            }
        }
    }

    /// One credit for each debit, the same one, and none without.
    fn debits_and_credits(&self, wrong: &mut Vec<String>) {
        let mut given: BTreeMap<&str, Vec<&Credit>> = BTreeMap::new();
        for credit in &self.credits {
            given.entry(&credit.transfer).or_default().push(credit);
        }
        for debit in &self.debits {
            let credits = given.remove(&*debit.name).unwrap_or_default();
            match &credits[..] {
                [credit] if (credit.to, credit.amount) == (debit.to, debit.amount) => {}
                [] => wrong.push(format!("{debit:?} has no credit")),
                _ => wrong.push(format!("{debit:?} has the credits {credits:?}")),
            }
        }
        wrong.extend(given.values().map(|credits| format!("without a debit: {credits:?}")));
        let keys: BTreeSet<&str> = self.credits.iter().map(|credit| &*credit.message_key).collect();
        let processed: BTreeSet<&str> = self.processing.keys().map(String::as_str).collect();
        for key in keys.symmetric_difference(&processed) {
            wrong.push(format!("message {key} has a credit and no barrier row, or the other way round"));
        }
    }

    /// The broker decided each transaction once, and as the barrier of the database has it.
    fn decisions(&self, wrong: &mut Vec<String>) {
        let debits: BTreeSet<&str> = self.debits.iter().map(|debit| &*debit.name).collect();
        let mut unseen: BTreeSet<&str> = self.sending.keys().map(String::as_str).collect();
        for recorded in &self.recorded {
            let Recorded { origin, message_key, transfer, decisions } = recorded;
            unseen.remove(&**message_key);
            let row = self.sending.get(message_key).map(String::as_str);
            let is_debited = debits.contains(&*transfer.name);
            let [decision] = decisions[..] else {
                wrong.push(format!("{origin}: {transfer:?} is decided {} times", decisions.len()));
                continue;
            };
            // without a row the local transaction has not begun
            if decision.is_commit != (row == Some("commit")) || decision.is_commit != is_debited {
                let Transfer { name, .. } = transfer;
                wrong.push(format!(
                    "{origin}: {name} is {decision:?}, its row says {row:?}, debited: {is_debited}"
                ));
            }
        }
        wrong.extend(unseen.iter().map(|key| format!("a barrier row of {key}, which was never prepared")));
        wrong.extend(self.open.iter().map(|origin| format!("transaction {origin} is still open")));
    }

    /// What a producer was told holds.
    fn promises(&self, wrong: &mut Vec<String>) {
        let debits: BTreeSet<&str> = self.debits.iter().map(|debit| &*debit.name).collect();
        for Entry { what, transfer, detail } in &self.journal {
            let is_debited = debits.contains(&**transfer);
            let holds = match &**what {
                COMMITTED => is_debited,
                ROLLED_BACK | FENCED => !is_debited,
                CONFLICT => false,
                _ => true,
            };
            if !holds {
                wrong.push(format!(
                    "a producer was told {what} of {transfer}, debited: {is_debited} {detail}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod doctored {
    use super::*;
    use crate::ledger::Decided;

    /// The right books of one transfer that was committed and one that was not.
    fn books() -> Books {
        let transfer = |name: &str| Transfer { name: name.to_owned(), from: 1, to: 2, amount: 30 };
        let recorded = |origin, key: &str, transfer, is_commit| Recorded {
            origin,
            message_key: key.to_owned(),
            transfer,
            decisions: vec![Decided { is_commit, by_check_back: false }],
        };
        let full = || (0..ACCOUNTS).map(|id| (id, INITIAL)).collect::<BTreeMap<_, _>>();
        let mut books = Books {
            debit_balances: full(),
            credit_balances: full(),
            debits: vec![transfer("a")],
            credits: vec![Credit {
                transfer: "a".to_owned(),
                to: 2,
                amount: 30,
                message_key: "A".to_owned(),
            }],
            sending: [("A", "commit"), ("B", "rollback")].map(|(key, why)| (key.into(), why.into())).into(),
            processing: [("A".to_owned(), "commit".to_owned())].into(),
            recorded: vec![recorded(7, "A", transfer("a"), true), recorded(9, "B", transfer("b"), false)],
            open: Vec::new(),
            journal: Vec::new(),
        };
        books.tell(COMMITTED, "a");
        books.tell(FENCED, "b");
        *books.debit_balances.get_mut(&1).unwrap() -= 30;
        *books.credit_balances.get_mut(&2).unwrap() += 30;
        books
    }

    impl Books {
        fn tell(&mut self, what: &str, transfer: &str) {
            let (what, transfer, detail) = (what.to_owned(), transfer.to_owned(), String::new());
            self.journal.push(Entry { what, transfer, detail });
        }
    }

    #[test]
    fn right_books_pass() {
        assert_eq!(books().audit(), [""; 0]);
    }

    /// Each way in which money or a decision can go wrong, alone.
    #[test]
    fn each_fault_is_noticed() {
        type Fault = (&'static str, fn(&mut Books));
        let faults: &[Fault] = &[
            ("a coin was made", |books| *books.credit_balances.get_mut(&3).unwrap() += 1),
            ("a coin moved between accounts", |books| {
                *books.credit_balances.get_mut(&3).unwrap() += 1;
                *books.credit_balances.get_mut(&4).unwrap() -= 1;
            }),
            ("a credit was given twice", |books| {
                books.credits.push(books.credits[0].clone());
                *books.credit_balances.get_mut(&2).unwrap() += 30;
            }),
            ("a credit was not given", |books| {
                books.credits.clear();
                books.processing.clear();
                *books.credit_balances.get_mut(&2).unwrap() -= 30;
            }),
            ("a credit went to another account", |books| {
                books.credits[0].to = 3;
                *books.credit_balances.get_mut(&2).unwrap() -= 30;
                *books.credit_balances.get_mut(&3).unwrap() += 30;
            }),
            ("a credit without a debit, which even adds up", |books| {
                books.debits.clear();
                *books.debit_balances.get_mut(&1).unwrap() += 30;
                *books.credit_balances.get_mut(&2).unwrap() -= 30;
                books.credits[0].amount = 0;
            }),
            ("a credit without its barrier row", |books| books.processing.clear()),
            ("a commit that the broker rolled back", |books| {
                books.recorded[0].decisions[0].is_commit = false
            }),
            ("a rollback that the broker committed", |books| books.recorded[1].decisions[0].is_commit = true),
            ("nobody decided", |books| books.recorded[1].decisions.clear()),
            ("decided twice", |books| {
                let decision = books.recorded[1].decisions[0];
                books.recorded[1].decisions.push(decision);
            }),
            ("the broker forgot a half", |books| drop(books.recorded.remove(0))),
            ("the broker lists it as open", |books| books.open.push(9)),
            ("a producer was told the opposite", |books| books.tell(COMMITTED, "b")),
            ("a producer was told of a rollback that was none", |books| books.tell(ROLLED_BACK, "a")),
            ("a producer met a conflict", |books| books.tell(CONFLICT, "b")),
        ];
        for (fault, doctor) in faults {
            let mut books = books();
            doctor(&mut books);
            assert_ne!(books.audit(), [""; 0], "not noticed: {fault}");
        }
    }
}
