//! Landlock (landlock(7)): three system calls that take a process's rights to files away, for good and for its children.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// LANDLOCK_CREATE_RULESET_VERSION and LANDLOCK_RULE_PATH_BENEATH of <linux/landlock.h>.
const VERSION: u32 = 1;
const PATH_BENEATH: u32 = 1;

/// struct landlock_ruleset_attr as of version 6. Older kernels take longer ones whose end is zero.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The kernel's version of the Landlock interface (landlock_create_ruleset(2)): `ENOSYS` where it is not built in, `EOPNOTSUPP`
/// where it was left out at boot.
pub fn landlock_version() -> io::Result<i64> {
    // SAFETY: asked for its version, the call wants a null pointer and a size of 0, makes no descriptor and touches no memory.
    super::checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    })
}

/// Rules that deny the rights `files` and whatever `scoped` names, except where [`Ruleset::allow`] says otherwise.
pub struct Ruleset(OwnedFd);

impl Ruleset {
    pub fn new(files: u64, scoped: u64) -> io::Result<Self> {
        let attr = RulesetAttr { handled_access_fs: files, handled_access_net: 0, scoped };
        // SAFETY: `attr` lives through the call and its size is passed; the descriptor returned is ours.
        unsafe {
            let size = size_of::<RulesetAttr>();
            let fd = super::checked(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0))?;
            Ok(Self(OwnedFd::from_raw_fd(fd as RawFd)))
        }
    }

    /// Gives `rights` back for the directory and all below it.
    pub fn allow(&self, directory: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        let attr = PathBeneathAttr { allowed_access: rights, parent_fd: directory.as_raw_fd() };
        // SAFETY: `attr` has the layout that the rule's kind wants, and lives through the call.
        super::checked(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), PATH_BENEATH, &raw const attr, 0)
        })
        .map(drop)
    }

    /// Puts the calling thread, which must have given up new privileges, under the rules.
    pub fn restrict(self) -> io::Result<()> {
        // SAFETY: a descriptor and a number.
        super::checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) }).map(drop)
    }
}
