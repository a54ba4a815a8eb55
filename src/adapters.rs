//! Adapters: one file or folder per technology, the only place that names it. Each implements ports and passes their suites in
//! `tests/contract/`.

pub mod audit_file;
#[cfg(feature = "aws")]
pub mod aws;
pub mod embedded;
pub mod key_set_file;
pub mod key_set_web;
pub mod local_vault;
mod private_files;
#[cfg(feature = "redis")]
pub mod redis;
mod sealed_env;
pub mod system_clock;
