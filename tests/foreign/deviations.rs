//! What foreign brokers lack or do otherwise: each entry names the behaviour, how its failure shows, and the reason as it
//! stands in that broker's source. A behaviour that is not here must hold.

/// One behaviour that a foreign broker is known not to have.
#[derive(Debug)]
pub(crate) struct Deviation {
    implementation: &'static str,
    behaviour: &'static str,
    /// What the failure's words hold; any other failure is not the known one.
    pub(crate) shows: &'static str,
    /// Why, as found in the broker's source.
    pub(crate) reason: &'static str,
}

const KNOWN: &[Deviation] = &[];

/// What is known about a behaviour of an implementation.
pub(crate) fn expected(implementation: &str, behaviour: &str) -> Option<&'static Deviation> {
    KNOWN.iter().find(|known| known.implementation == implementation && known.behaviour == behaviour)
}
