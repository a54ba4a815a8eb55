//! The first process of a sandbox: init of its pid namespace, and out of reach of the code that it looks after.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::sock_filter;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setresgid, setresuid};

use super::template::{Step, StepError};
use crate::sandbox::sys::raw::Errno;
use crate::sandbox::sys::{self, walls};

/// What it waits for; to be blocked before there is a runtime, so that none is missed.
pub fn waited_for() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGTERM);
    set
}

/// Gives up all rights but one: to signal processes of `user`.
///
/// Real and saved ids are `own`, which no other process has and no capability comes with. That is what keeps `user` from signalling it,
/// tracing it, or opening its descriptors, through which it tells how the runtime ended; the kernel looks at all three ids (kill(2),
/// ptrace(2)).
///
/// `launcher`: its pidfd.
pub fn give_up_rights(own: u32, user: u32, filter: &[sock_filter], launcher: BorrowedFd<'_>) -> Result<(), StepError> {
    let (own_gid, user_gid) = (Gid::from_raw(own), Gid::from_raw(user));
    setresgid(own_gid, user_gid, own_gid).step("become the first process's group")?;
    let (own, user) = (Uid::from_raw(own), Uid::from_raw(user));
    setresuid(own, user, own).step("become the first process's user")?;
    walls::drop_capabilities().map_err(io_error).step("drop the first process's capabilities")?;
    prctl::set_dumpable(false).step("hide the first process's memory")?;
    // A change of ids has cleared it.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask for the parent-death signal")?;
    lives(launcher)?;
    prctl::set_no_new_privs().step("forbid new privileges")?;
    let installed = walls::filter(sys::seccomp::bytes(filter), 0).map_err(io_error);
    installed.map(drop).step("install the first process's filter")
}

fn io_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// A launcher that died while the parent-death signal was not asked for is told of by nobody else.
pub fn lives(launcher: BorrowedFd<'_>) -> Result<(), StepError> {
    let mut end = [PollFd::new(launcher, PollFlags::POLLIN)];
    poll(&mut end, PollTimeout::ZERO).step("look for the launcher")?;
    let gone = end[0].any().unwrap_or(true);
    let gone = if gone { Err(io::Error::from(io::ErrorKind::NotConnected)) } else { Ok(()) };
    gone.step("find the launcher alive")
}

/// Passes SIGTERM on to all, reaps orphans, and goes when the runtime is gone, which ends whatever is left.
pub fn look_after(status: &OwnedFd) -> ! {
    let Ok(kept) = u32::try_from(status.as_fd().as_raw_fd()) else { sys::exit(1) };
    if kept > 0 {
        sys::close_range(0, kept - 1);
    }
    sys::close_range(kept + 1, u32::MAX);
    // The runtime is the first child, and pids in here count from 1; what a zygote forks gets this one too.
    let runtime = Pid::from_raw(2);
    loop {
        match waited_for().wait() {
            Ok(Signal::SIGTERM) => {
                let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
            }
            _ => loop {
                let (pid, raw) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(pid, code)) => (pid, (code & 0xff) << 8),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal as i32),
                    Ok(WaitStatus::StillAlive) | Err(_) => break,
                    Ok(_) => continue,
                };
                if pid == runtime {
                    let _ = nix::unistd::write(status, &raw.to_le_bytes());
                    sys::exit(0);
                }
            },
        }
    }
}
