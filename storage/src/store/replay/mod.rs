//! Whether a restart, a checkpoint and a base say the same as the store that ran: one ledger is folded from the records
//! alone, one is written to a base file and read back at every frame, and both are compared with the running one.

mod digest;
mod script;
mod side;
mod tests;
