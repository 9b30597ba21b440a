//! Headers: the borrowed view that every request starts with, and the typed fields of each request and reply.
//!
//! [`HeaderView`] and [`ExtFields`] are what came over the wire; one file per request turns the extension fields into
//! numbers and names (`decode`) and back (`encode`). Reading is lenient, because clients differ: numbers may come as JSON
//! numbers or text, booleans as `true`, `false`, `1` or `0`, an empty text counts as absent for them.

mod ext_fields;
mod view;

pub use ext_fields::{ExtField, ExtFields};
pub use view::{FLAG_ONEWAY, FLAG_RESPONSE, HeaderView};
