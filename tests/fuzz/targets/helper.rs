//! See `supervisor/src/helper/fuzzing.rs`. Included by path, so that the whole supervisor need not be built for it.
#![no_main]

#[path = "../../../supervisor/src/helper/fuzzing.rs"]
mod fuzzing;
#[allow(dead_code)]
#[path = "../../../supervisor/src/helper/lines.rs"]
mod lines;
#[path = "../../../bridge/src/fuzzing/numbers.rs"]
mod numbers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::lines(bytes));
