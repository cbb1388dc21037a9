//! See `bridge::fuzzing::forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bridge::fuzzing::forwarded(bytes));
