//! Send de-duplication: whether the answer to a first send may have been lost, which only the connections know.
//!
//! ```text
//!  a send with a known key (send/repeats.rs)
//!     explicit id .................................... a repeat
//!     first one by the same connection ............... a new message: that connection had its answer
//!     nobody has the first one's answer .............. a repeat
//!     first one by another connection ................ knock: does it live?  (senders.rs)
//!  a repeat is one only if the log says so, too: then it is answered as the first one was  (settle.rs)
//! ```
//!
//! Nobody has the answer when its connection ended without having shown a byte after the answer was written, when it
//! was written later than `dedup.answer_timeout` after the send came, when it was a refusal, or when the broker was
//! started since.

mod senders;
mod settle;

pub(crate) use senders::{OwnSends, Senders};
pub(crate) use settle::{Candidate, Verdict, settle};
