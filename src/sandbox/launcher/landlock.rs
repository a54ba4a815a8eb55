//! Rights to files by Landlock, where the kernel has it: a second wall behind mounts that are read-only and system calls that are refused.
//!
//! Everything may be read and executed, nothing but `/tmp`, `/output` and the devices written. From version 6 on neither abstract sockets
//! nor signals reach out of the sandbox; its network and pid namespaces say the same.

use crate::sandbox::sys::landlock::landlock_version;
use crate::sandbox::sys::walls::Rights;

/// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and LANDLOCK_SCOPE_SIGNAL.
const SCOPES: u64 = 0b11;

/// What this kernel can take away; nothing where there is no Landlock, or it was not switched on.
pub fn offered() -> Rights {
    landlock_version().map(of_version).unwrap_or_default()
}

fn of_version(version: i64) -> Rights {
    // The number of rights to files that each version knows.
    let files = match version {
        ..=0 => return Rights::default(),
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    Rights { files: (1 << files) - 1, scopes: if version >= 6 { SCOPES } else { 0 } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::sys::walls::{IOCTL_DEV, TRUNCATE};

    #[test]
    fn each_version_takes_what_it_knows() {
        assert_eq!(of_version(0), Rights::default());
        let files = |version| of_version(version).files;
        assert_eq!((files(1) & TRUNCATE, files(2) & TRUNCATE), (0, 0));
        assert_eq!((files(3) & TRUNCATE, files(4) & IOCTL_DEV), (TRUNCATE, 0));
        assert_eq!(files(5) & IOCTL_DEV, IOCTL_DEV);
        let scopes = |version| of_version(version).scopes;
        assert_eq!((scopes(5), scopes(6), scopes(99)), (0, SCOPES, SCOPES));
    }
}
