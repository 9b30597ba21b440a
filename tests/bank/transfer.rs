//! One transfer: what is written into a message, and what both databases say about it.

/// So much from an account of the first database to one of the second. Its name is unique in a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Transfer {
    pub(crate) name: String,
    /// In the first database.
    pub(crate) from: i64,
    /// In the second database.
    pub(crate) to: i64,
    pub(crate) amount: i64,
}

impl Transfer {
    /// As the body of a message.
    pub(crate) fn text(&self) -> String {
        format!("{} {} {} {}", self.name, self.from, self.to, self.amount)
    }

    /// What [`Transfer::text`] wrote.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let transfer = Self {
            name: words.next()?.to_owned(),
            from: words.next()?.parse().ok()?,
            to: words.next()?.parse().ok()?,
            amount: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(transfer)
    }
}
