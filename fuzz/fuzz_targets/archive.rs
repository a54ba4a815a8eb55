#![no_main]
//! See `faasd::fuzzing::archive`.

use std::sync::LazyLock;

/// Left behind, empty, when the fuzzer ends the process.
static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| faasd::fuzzing::archive(bytes, DIR.path()));
