//! Adapters: one file or folder per technology, the only place that names it. Each implements ports and passes their suites in
//! `tests/contract/`.

pub mod audit_file;
#[cfg(feature = "aws")]
pub mod aws;
pub mod disk_space;
pub mod embedded;
pub mod key_set_file;
pub mod key_set_web;
pub mod local;
pub mod local_vault;
pub mod logged;
mod private_files;
#[cfg(feature = "redis")]
pub mod redis;
mod sealed_env;
pub mod system_clock;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder panicked guards data that each holder leaves whole, so it is taken all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
