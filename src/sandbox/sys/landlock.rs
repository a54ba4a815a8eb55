//! Landlock (landlock(7)): what the kernel has of it. What is taken away with it is in [`super::walls`].

use std::io;

/// LANDLOCK_CREATE_RULESET_VERSION of <linux/landlock.h>.
const VERSION: u32 = 1;

/// The kernel's version of the Landlock interface (landlock_create_ruleset(2)): `ENOSYS` where it is not built in, `EOPNOTSUPP`
/// where it was left out at boot.
pub fn landlock_version() -> io::Result<i64> {
    // SAFETY: asked for its version, the call wants a null pointer and a size of 0, makes no descriptor and touches no memory.
    super::checked(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    })
}
