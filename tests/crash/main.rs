//! Crashes of the real program.
