//! Parts of the log that are damaged and whose loss a person has accepted: section 21 of a base. Reading the log passes
//! over them, and the fold knows what may be missing (`docs/decisions/0009-accepted-losses.md`).
//!
//! ```text
//! newest u64: number of the newest loss that ever was accepted; a checkpoint has this alone
//! per loss: from u64 | to u64, all ones: nothing behind was readable | until u64 | by u64
//! ```

use super::FormatError;
use super::cursor::Cursor;

/// Nothing behind the loss was readable.
const NOWHERE: u64 = u64::MAX;

/// One accepted loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Position behind the last valid frame before it.
    pub from: u64,
    /// Position of the frame at which reading goes on; `None` if nothing behind was readable.
    pub to: Option<u64>,
    /// Records below this position were written by a broker that still had what is lost.
    pub until: u64,
    /// The next offset of every queue rises by this much at `from`: more than messages can have had offsets behind it.
    pub by: u64,
}

impl Loss {
    /// Whether `position` is lost.
    #[must_use]
    pub fn covers(&self, position: u64) -> bool {
        self.from <= position && self.to.is_some_and(|to| position < to)
    }
}

/// All losses that a base knows of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Number of the newest one that ever was accepted, 0 if none was; losses leave the list when the base passes them.
    pub newest: u64,
    /// By rising `from`.
    pub list: Vec<Loss>,
}

impl Losses {
    /// Appends the section's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.newest.to_le_bytes());
        for loss in &self.list {
            for field in [loss.from, loss.to.unwrap_or(NOWHERE), loss.until, loss.by] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
    }

    /// Reads a section; an empty one is that of a base without losses.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut losses = Self::default();
        if bytes.is_empty() {
            return Ok(losses);
        }
        let mut cursor = Cursor::new("losses", bytes);
        losses.newest = cursor.u64()?;
        while !cursor.is_empty() {
            let (from, to, until, by) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
            let loss = Loss { from, to: (to != NOWHERE).then_some(to), until, by };
            let above = losses.list.last().is_none_or(|before| before.from < from);
            if !above || loss.to.is_some_and(|to| to <= from) {
                return Err(FormatError::BadValue { field: "loss position", got: from });
            }
            losses.list.push(loss);
        }
        Ok(losses)
    }

    /// The loss that begins at `position`.
    #[must_use]
    pub fn at(&self, position: u64) -> Option<&Loss> {
        self.list.iter().find(|loss| loss.from == position)
    }

    /// Where reading goes on if `position` is lost.
    #[must_use]
    pub fn behind(&self, position: u64) -> Option<u64> {
        self.list.iter().find(|loss| loss.covers(position)).and_then(|loss| loss.to)
    }

    /// Those that a base at `position` still has to know.
    #[must_use]
    pub fn from_position(&self, position: u64) -> Self {
        let kept = |loss: &&Loss| loss.from >= position || loss.until > position;
        Self { newest: self.newest, list: self.list.iter().filter(kept).copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let losses = Losses {
            newest: 2,
            list: vec![
                Loss { from: 1, to: Some(3), until: 9, by: 5 },
                Loss { from: 4, to: None, until: 9, by: 7 },
            ],
        };
        let mut golden = Vec::new();
        for field in [2, 1, 3, 9, 5, 4, u64::MAX, 9, 7] {
            golden.extend_from_slice(&u64::to_le_bytes(field));
        }
        let mut bytes = Vec::new();
        losses.encode(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Losses::decode(&bytes).unwrap(), losses);
        assert_eq!(Losses::decode(&[]).unwrap(), Losses::default());
        assert_eq!((losses.behind(2), losses.behind(3), losses.behind(4)), (Some(3), None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Losses::decode(&bytes);
        }
    }
}
