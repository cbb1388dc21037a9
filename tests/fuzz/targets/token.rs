//! See `bridge::fuzzing::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::token(bytes));
