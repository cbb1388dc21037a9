//! See `bridge::fuzzing::token_api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::token_api(bytes));
