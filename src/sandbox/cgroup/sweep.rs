//! Clearing away groups that nobody is in charge of any more: a daemon's own from an earlier run, and those of daemons that are
//! gone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long to wait for killed processes to be gone; one that hangs in the kernel is left to the next sweep.
const SWEEP_WAIT: Duration = Duration::from_secs(5);

/// How long a sweep, or a daemon that goes away, may keep a claim from the next daemon.
pub const CLAIM_WAIT: Duration = Duration::from_secs(10);
/// A daemon that is gone gives its claim back at once; one that has started in its place keeps it.
const SWEEPER_WAIT: Duration = Duration::from_secs(1);
const CLAIM_RETRY: Duration = Duration::from_millis(5);

/// The right to a daemon's groups: a lock on the first of its parents, which the kernel gives back when the holder is gone, however
/// it went. A daemon holds it while it lives; whoever sweeps a dead one's groups holds it meanwhile, so that no sweep ever meets a
/// daemon that starts.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<Flock<File>>,
}

impl Claim {
    /// Waits for it, up to `wait`. `None`: the groups were swept away while it waited, and must be made again first. `AddrInUse`: another daemon
    /// lives there.
    pub fn take(parents: &[PathBuf], wait: Duration) -> io::Result<Option<Self>> {
        let Some(own) = parents.first() else { return Ok(Some(Self { _lock: None })) };
        let begun = Instant::now();
        loop {
            let group = match File::open(own) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let inode = group.metadata()?.ino();
            match Flock::lock(group, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    let same = fs::metadata(own).is_ok_and(|now| now.ino() == inode);
                    return Ok(same.then_some(Self { _lock: Some(lock) }));
                }
                Err((_, Errno::EWOULDBLOCK)) if begun.elapsed() < wait => std::thread::sleep(CLAIM_RETRY),
                Err((_, Errno::EWOULDBLOCK)) => return Err(io::ErrorKind::AddrInUse.into()),
                Err((_, error)) => return Err(error.into()),
            }
        }
    }

    /// `None`: somebody has it.
    fn try_take(group: &Path) -> Option<Self> {
        let lock = Flock::lock(File::open(group).ok()?, FlockArg::LockExclusiveNonblock).ok()?;
        Some(Self { _lock: Some(lock) })
    }
}

/// Clears away the groups of daemons that are gone and were never started again: the siblings of `parents` that nobody claims. Returns
/// how many sandboxes' groups went.
pub fn sweep_orphans(parents: &[PathBuf]) -> usize {
    let Some(Ok(entries)) = parents.first().and_then(|own| own.parent()).map(fs::read_dir) else { return 0 };
    let mut swept = 0;
    for entry in entries.flatten().filter(|entry| !parents.contains(&entry.path()) && entry.path().is_dir()) {
        let Some(_claim) = Claim::try_take(&entry.path()) else { continue };
        let theirs: Vec<PathBuf> = parents.iter().map(|parent| parent.with_file_name(entry.file_name())).collect();
        swept += sweep(&theirs);
        for parent in &theirs {
            // What could not be emptied stays for the next time.
            let _ = fs::remove_dir(parent);
        }
    }
    swept
}

/// Ends a daemon's sandboxes and removes its groups, unless a new daemon has claimed them meanwhile, and so swept them itself.
pub fn end_all(parents: &[PathBuf]) {
    if let Ok(Some(_claim)) = Claim::take(parents, SWEEPER_WAIT) {
        sweep(parents);
        remove_parents(parents);
    }
}

/// Kills what is in the groups below `parents` and removes them; the parents stay. Returns how many went.
pub fn sweep(parents: &[PathBuf]) -> usize {
    parents.iter().map(|parent| sweep_below(parent)).sum()
}

/// Removes parents, and the prefix above them, as far as they are empty.
pub(super) fn remove_parents(parents: &[PathBuf]) {
    for parent in parents {
        let _ = fs::remove_dir(parent);
        if let Some(prefix) = parent.parent() {
            let _ = fs::remove_dir(prefix);
        }
    }
}

fn sweep_below(parent: &Path) -> usize {
    let Ok(entries) = fs::read_dir(parent) else { return 0 };
    let mut removed = 0;
    for group in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let begun = Instant::now();
        while fs::remove_dir(&group).is_err() && group.exists() && begun.elapsed() < SWEEP_WAIT {
            let _ = fs::write(group.join("freezer.state"), "THAWED");
            let _ = fs::write(group.join("cgroup.freeze"), "0");
            kill_all(&group);
            std::thread::sleep(Duration::from_millis(2));
        }
        removed += usize::from(!group.exists());
    }
    removed
}

/// SIGKILL to every process of a group.
pub(super) fn kill_all(group: &Path) {
    for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid @ 1..) = pid.parse() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories stand in for groups: what is claimed, and by whom, is the same.
    #[test]
    fn a_sweep_leaves_alone_what_is_claimed() {
        let tree = tempfile::tempdir().unwrap();
        let [own, living, dead] = ["own", "living", "dead"].map(|name| tree.path().join("faasd").join(name));
        for group in [&own, &living, &dead] {
            fs::create_dir_all(group.join("sandbox")).unwrap();
        }
        let claims =
            [&own, &living].map(|group| Claim::take(std::slice::from_ref(group), SWEEPER_WAIT).unwrap().unwrap());
        assert_eq!(sweep_orphans(std::slice::from_ref(&own)), 1);
        assert!(own.join("sandbox").exists() && living.join("sandbox").exists() && !dead.exists());
        drop(claims);
        end_all(std::slice::from_ref(&living));
        assert!(!living.exists() && own.exists());
    }

    #[test]
    fn groups_that_went_while_the_claim_was_waited_for_are_to_be_made_again() {
        let tree = tempfile::tempdir().unwrap();
        let own = [tree.path().join("faasd/own")];
        assert!(Claim::take(&own, SWEEPER_WAIT).unwrap().is_none());
        assert!(Claim::take(&[], SWEEPER_WAIT).unwrap().is_some(), "where there are no groups, nobody is in the way");
    }
}
