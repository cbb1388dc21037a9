//! See `supervisor/src/admin/fuzzing.rs`. Included by path, so that the whole supervisor need not be built for it.
#![no_main]

#[path = "../../../supervisor/src/admin/fuzzing.rs"]
mod fuzzing;
#[allow(dead_code)]
#[path = "../../../supervisor/src/admin/gate.rs"]
mod gate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::request(bytes));
