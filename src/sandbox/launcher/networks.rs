//! Network namespaces made ahead: each empty but for a loopback that is up, each for one sandbox ever.
//!
//! To make one takes the kernel longer than all other namespaces of a sandbox together, so a few lie ready. They are made by a child in a
//! user namespace of their own, which is nobody's: neither the launcher needs a right over networks for it, nor has anyone in a sandbox
//! one over its own. Where none lies ready a sandbox makes its own while it begins.
//!
//! ```text
//! begin: a child, in a new namespace → loopback up → sent here: arrive
//! take → enter → clone of the sandbox, which stays in it → leave → drop
//! ```
//!
//! A namespace is gone with its last process and descriptor: nothing of it is left when the launcher is gone, however it went.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::template::{Step, StepError};
use crate::sandbox::sys::{self, Cloned};

/// Twice as many as the pool starts at once by default. Each holds some kernel memory and no process.
const AHEAD_MAX: usize = 8;
/// One is begun each time that nobody has wanted anything of the launcher for so long: a first call is over by then.
pub const QUIET: Duration = Duration::from_millis(10);

/// Once it is dropped, whoever was cloned in it is alone there for good.
pub struct Network(OwnedFd);

impl Network {
    /// For the caller and what it clones until it [`Networks::leave`]s.
    pub fn enter(&self) -> Result<(), StepError> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).step("enter a network namespace")
    }
}

pub struct Networks {
    /// The launcher's.
    own: File,
    ahead: Vec<Network>,
    /// Readable when the one that is being made has come, or can't.
    coming: Option<OwnedFd>,
    /// Whether there are user namespaces here, without which none is made.
    offered: bool,
    /// The last could not be made: no more until one is wanted again.
    rests: bool,
}

impl Networks {
    pub fn new(offered: bool) -> Result<Self, StepError> {
        Ok(Self { own: current()?, ahead: Vec::new(), coming: None, offered, rests: false })
    }

    /// Whether one more should be begun.
    pub fn wants_more(&self) -> bool {
        self.offered && !self.rests && self.coming.is_none() && self.ahead.len() < AHEAD_MAX
    }

    /// Begins to make one.
    pub fn begin(&mut self) {
        match begin() {
            Ok(coming) => self.coming = Some(coming),
            Err(_) => self.rests = true,
        }
    }

    /// Readable when [`Self::arrive`] should be called.
    pub fn coming(&self) -> Option<BorrowedFd<'_>> {
        self.coming.as_ref().map(AsFd::as_fd)
    }

    pub fn arrive(&mut self) {
        let received = self.coming.take().and_then(|coming| sys::receive(&coming, &mut [0]).ok());
        match received.and_then(|(_, fds)| fds.into_iter().next()) {
            Some(network) => self.ahead.push(Network(network)),
            None => self.rests = true,
        }
    }

    /// One that nobody has had, if any lies ready.
    pub fn take(&mut self) -> Option<Network> {
        self.rests = false;
        self.ahead.pop()
    }

    /// Back into the launcher's.
    pub fn leave(&self) -> Result<(), StepError> {
        setns(&self.own, CloneFlags::CLONE_NEWNET).step("leave a network namespace")
    }
}

fn begin() -> Result<OwnedFd, StepError> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).step("make a socket")?;
    match sys::clone3((libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64, None).step("clone into a network namespace")? {
        Cloned::Child => {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            let made = sys::loopback_up().step("bring up loopback").and_then(|()| current());
            // Without a word of it there is none.
            let _ = made.map(|made| sys::send(&theirs, b"1", &[made.as_fd()]));
            sys::exit(0)
        }
        Cloned::Parent { .. } => Ok(ours),
    }
}

fn current() -> Result<File, StepError> {
    // Closed at exec.
    File::open("/proc/thread-self/ns/net").step("open a network namespace")
}
