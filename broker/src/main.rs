//! The `mezzo` binary.

fn main() {}
