//! The launcher's own mount namespace: what it mounts is seen nowhere else, and its root is the namespace's root.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{fchdir, pivot_root};

use super::template::{Step, StepError};
use crate::sandbox::sys;

/// Moves this process, which must be single-threaded, into a mount namespace of its own.
///
/// A chroot is a path, not a namespace: in one, user namespaces are refused (`create_user_ns` in the kernel's user_namespace.c), and mounts
/// can neither be made private nor given up, since the mount they hang on is out of sight. So the directory that was `/` becomes the
/// root of the new namespace, and what lay above it is let go.
pub fn enter() -> Result<(), StepError> {
    unshare(CloneFlags::CLONE_NEWNS).step("make a mount namespace")?;
    let root = open_root()?;
    // Joining a mount namespace, even one's own, leads to its root. Where that is not allowed, nothing is lost unless this is a chroot;
    // there the next step fails.
    if let Ok(own) = File::open("/proc/self/ns/mnt") {
        let _ = setns(own, CloneFlags::CLONE_NEWNS);
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("make mounts private")?;
    let place = |file: &OwnedFd| -> Result<(u64, u64), StepError> {
        let inode = fstat(file).step("look at the root")?.st_ino;
        Ok((sys::mount_id(file.as_fd()).step("look at the root")?, inode))
    };
    if place(&root)? == place(&open_root()?)? {
        return Ok(());
    }
    fchdir(&root).step("enter the root")?;
    let tree = sys::open_tree(c".", true).step("copy the root's mounts")?;
    sys::move_mount(tree.as_fd(), c".").step("mount the root")?;
    fchdir(&tree).step("enter the root")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the old root")
}

fn open_root() -> Result<OwnedFd, StepError> {
    open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).step("open the root")
}
