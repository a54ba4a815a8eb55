//! Rights to files by Landlock, where the kernel has it: a second wall behind mounts that are read-only and system calls that are refused.
//!
//! Everything may be read and executed, nothing but `/tmp`, `/output` and the devices written. From version 6 on neither abstract sockets
//! nor signals reach out of the sandbox; its network and pid namespaces say the same.

use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::template::{OUTPUT, Step, StepError, TMP};
use crate::sandbox::sys::landlock::{Ruleset, landlock_version};

// LANDLOCK_ACCESS_FS_* of <linux/landlock.h>.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const DEVICES: u64 = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV;

/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL.
const SCOPES: u64 = 0b11;

/// What this kernel can take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    files: u64,
    scopes: u64,
}

impl Rights {
    /// `None` where there is no Landlock, or it was not switched on.
    pub fn offered() -> Option<Self> {
        landlock_version().ok().and_then(Self::of_version)
    }

    fn of_version(version: i64) -> Option<Self> {
        // The number of rights to files that each version knows.
        let files = match version {
            ..=0 => return None,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        Some(Self { files: (1 << files) - 1, scopes: if version >= 6 { SCOPES } else { 0 } })
    }

    /// Takes them from the caller and its children, in the sandbox's own root.
    pub fn restrict(self) -> Result<(), StepError> {
        let rules = Ruleset::new(self.files, self.scopes).step("make Landlock rules")?;
        for (directory, rights) in [("/", READ), (TMP, self.files), (OUTPUT, self.files), ("dev", DEVICES)] {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let opened = open(directory, flags, Mode::empty()).step(format!("open {directory} for Landlock"))?;
            rules.allow(opened.as_fd(), rights & self.files).step(format!("allow {directory} by Landlock"))?;
        }
        rules.restrict().step("restrict by Landlock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_takes_what_it_knows() {
        assert_eq!(Rights::of_version(0), None);
        let files = |version| Rights::of_version(version).unwrap().files;
        assert_eq!((files(1) & TRUNCATE, files(2) & TRUNCATE), (0, 0));
        assert_eq!((files(3) & TRUNCATE, files(4) & IOCTL_DEV), (TRUNCATE, 0));
        assert_eq!(files(5) & IOCTL_DEV, IOCTL_DEV);
        let scopes = |version| Rights::of_version(version).unwrap().scopes;
        assert_eq!((scopes(5), scopes(6), scopes(99)), (0, SCOPES, SCOPES));
    }
}
