//! Adapters: one file or folder per technology, the only place that names it. Each implements ports and passes their suites in
//! `tests/contract/`.

pub mod embedded;
pub mod local_vault;
mod private_files;
pub mod system_clock;
