//! See `bridge::fuzzing::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::head(bytes));
