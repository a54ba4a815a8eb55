//! Adapters: one file or folder per technology, the only place that names it. Each implements ports and passes their suites in
//! `tests/contract/`.

pub mod audit_file;
pub mod embedded;
pub mod key_set_file;
pub mod key_set_web;
pub mod system_clock;
