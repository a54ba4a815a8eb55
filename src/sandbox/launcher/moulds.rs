//! Moulds: mount namespaces that sandboxes are cast from, each with one of the roots and hardly more.
//!
//! A clone into a new mount namespace copies every mount there is where it comes from, and lets go of every copy again: in the
//! launcher's own that is all that the host has mounted, and two for each living sandbox. So the launcher steps into a mould for the
//! clone. In there are the root and the host's `/proc`, without which the kernel gives a user namespace none of its own
//! (`mount_too_revealing` in the kernel's namespace.c); nothing else of the host's was ever in a sandbox's sight.

use std::fs::{self, File};
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::protocol::Root;
use super::template::{PROC, Step, StepError};

pub struct Moulds {
    /// The launcher's own namespace, and its working directory there.
    own: File,
    home: File,
    all: Vec<(Root, File)>,
}

impl Moulds {
    /// One for each of `roots`, which lie in the working directory: a file system of the launcher's own, with nothing else mounted in it.
    /// `None` where namespaces can't be gone back to (that takes CAP_SYS_CHROOT): then sandboxes are cloned where the launcher is.
    pub fn make(roots: &[(Root, PathBuf)]) -> Result<Option<Self>, StepError> {
        let own = current()?;
        let home = File::open(".").step("open the run directory")?;
        let mut moulds = Self { own, home, all: Vec::new() };
        if moulds.leave().is_err() {
            return Ok(None);
        }
        fs::create_dir(PROC).step("make a place for /proc")?;
        for (kind, _) in roots {
            unshare(CloneFlags::CLONE_NEWNS).step("make a mould")?;
            let others = roots.iter().filter(|(other, _)| other != kind).map(|(_, path)| path);
            let made = strip(others).and_then(|()| current());
            moulds.leave()?;
            moulds.all.push((*kind, made?));
        }
        Ok(Some(moulds))
    }

    /// For the caller and what it clones until it [`Self::leave`]s. Its working directory is where the root is, as outside.
    pub fn enter(&self, root: Root) -> Result<(), StepError> {
        let Some((_, mould)) = self.all.iter().find(|(kind, _)| *kind == root) else { return Ok(()) };
        setns(mould, CloneFlags::CLONE_NEWNS).step("enter a mould")
    }

    pub fn leave(&self) -> Result<(), StepError> {
        setns(&self.own, CloneFlags::CLONE_NEWNS).step("leave a mould")?;
        fchdir(&self.home).step("go back to the run directory")
    }
}

/// Leaves of a copy of the launcher's mounts what is in the working directory, without `others`, and `/proc`.
fn strip<'a>(others: impl Iterator<Item = &'a PathBuf>) -> Result<(), StepError> {
    // With whatever covers parts of it on the host.
    mount(Some("/proc"), PROC, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).step("keep /proc")?;
    for other in others {
        umount2(other, MntFlags::MNT_DETACH).step("take the other root out")?;
    }
    pivot_root(".", ".").step("change the mould's root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the host's mounts")?;
    chdir("/").step("enter the mould's root")
}

fn current() -> Result<File, StepError> {
    // Closed at exec.
    File::open("/proc/thread-self/ns/mnt").step("open a mount namespace")
}
