//! How many daemons may run at once, and what tells one from another: each has a slot of its own with its own range of
//! user ids, so that no two ever meet in the kernel.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

/// Two processors can drive about this many daemons before the waits in the tests are about the machine.
const DAEMONS_AT_ONCE: usize = 3;
/// User ids a daemon is given: two a sandbox, so more sandboxes than any test starts.
pub const UIDS_PER_DAEMON: u32 = 8192;
/// Well below the daemon's own default range, so that a real one on the same machine isn't met either.
const UID_FIRST: u32 = 1_000_000_000;
/// Test processes told apart by their pid, as far as the id space below the default range goes.
const PROCESSES: u32 = 20_000;

static TAKEN: Mutex<[bool; DAEMONS_AT_ONCE]> = Mutex::new([false; DAEMONS_AT_ONCE]);
static RETURNED: Condvar = Condvar::new();
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The right to run one daemon; given back on drop.
pub struct Slot {
    index: usize,
    /// Name of the daemon's cgroups, never used twice.
    pub cgroup_prefix: String,
    pub uid_first: u32,
}

impl Slot {
    /// Waits for a free one. Blocks the thread: each test has its own.
    pub fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let index = loop {
            if let Some(index) = taken.iter().position(|taken| !taken) {
                break index;
            }
            taken = RETURNED.wait(taken).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        taken[index] = true;
        let pid = std::process::id();
        let nth = STARTED.fetch_add(1, Ordering::Relaxed);
        let process = pid % PROCESSES * DAEMONS_AT_ONCE as u32;
        Self {
            index,
            cgroup_prefix: format!("faasd-test-{pid}-{nth}"),
            uid_first: UID_FIRST + (process + index as u32) * UIDS_PER_DAEMON,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[self.index] = false;
        RETURNED.notify_one();
    }
}
