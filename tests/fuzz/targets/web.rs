//! See `bridge::fuzzing::web`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::web(bytes));
