#![no_main]
//! See `faasd::fuzzing::multipart`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faasd::fuzzing::multipart(bytes));
