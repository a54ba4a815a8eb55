#![no_main]
//! See `faasd::fuzzing::runtime_api`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faasd::fuzzing::runtime_api(bytes));
