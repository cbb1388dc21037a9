//! See `supervisor/src/hand_over/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| websockify::fuzzing::handed_over(bytes));
