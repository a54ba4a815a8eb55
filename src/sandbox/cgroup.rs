//! Control groups: one set of groups per sandbox, over v1, hybrid and v2 behind the same verbs.
//!
//! ```text
//! make → limit → (attach | clone into) → meter (usage), freeze, thaw … → remove
//! ```
//!
//! Each controller lives where this machine has it: on the unified (v2) hierarchy if that offers it, else on its v1 mount.
//! Files that are read or written while a sandbox lives are kept open: a `pread` on a kept descriptor costs about 1 µs, opening the
//! file first six times that (`benches/usage.rs`).

mod disks;
mod group;
mod layout;
mod limit;
mod meter;
pub mod pressure;
mod sweep;

pub use disks::count as count_disks;
pub use group::Group;
pub use layout::{Controller, Layout};
pub use limit::{Device, IoLimits, Limits};
pub use meter::{Meter, Peak, Readings};
pub use sweep::{CLAIM_WAIT, Claim, end_all, sweep_orphans};

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What went wrong, with the file it went wrong at.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {}: {source}", path.display())]
pub struct CgroupError {
    pub verb: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl CgroupError {
    fn new(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { verb, path, source }
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(CgroupError::new("write", path))
}
