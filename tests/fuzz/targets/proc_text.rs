//! See `supervisor/src/machine/fuzzing.rs`. Included by path, so that the whole supervisor need not be built for it.
#![no_main]

#[path = "../../../supervisor/src/machine/fuzzing.rs"]
mod fuzzing;
#[allow(dead_code)]
#[path = "../../../supervisor/src/machine/proc_text.rs"]
mod proc_text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::texts(bytes));
