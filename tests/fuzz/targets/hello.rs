//! See `bridge::fuzzing::hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::hello(bytes));
