//! Tests of the log as a whole; those of single parts stand beside them.
