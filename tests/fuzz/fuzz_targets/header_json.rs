//! Any JSON header is read or refused; what is read can be written and means the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::remoting::HeaderEncoding;

mod round_trip;

fuzz_target!(|data: &[u8]| round_trip::check(HeaderEncoding::Json, data));
