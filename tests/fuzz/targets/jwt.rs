//! See `bridge::fuzzing::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::jwt(bytes));
