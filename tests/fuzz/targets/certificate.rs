//! See `bridge::fuzzing::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::certificate(bytes));
