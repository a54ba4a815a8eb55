#![no_main]
//! See `faasd::fuzzing::configuration`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faasd::fuzzing::configuration(bytes));
