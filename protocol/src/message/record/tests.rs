//! Golden bytes for all four host combinations, round trips, and any bytes.
