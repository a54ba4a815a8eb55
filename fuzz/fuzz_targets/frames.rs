#![no_main]
//! See `faasd::fuzzing::frames`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faasd::fuzzing::frames(bytes));
