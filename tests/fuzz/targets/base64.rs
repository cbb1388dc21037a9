//! See `bridge::fuzzing::base64`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::base64(bytes));
