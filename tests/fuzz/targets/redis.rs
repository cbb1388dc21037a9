//! See `bridge::fuzzing::redis`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::redis(bytes));
