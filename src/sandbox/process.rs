//! The processes of one sandbox, from outside: made through the launcher, watched until nothing is left, then cleaned up after.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::cgroup::{Group, Peak, Readings};
use super::channel::Channel;
use super::driver::Shared;
use super::launcher::protocol::Start;
use super::{files, sys};
use crate::ports::sandbox::{Exit, SandboxError};

/// Between SIGKILL and the last process gone; longer only if one hangs in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Between two tries to remove a group whose last process has just gone.
const REMOVE_RETRY: Duration = Duration::from_millis(5);
const REMOVE_TRIES: usize = 400;

/// What is known of a sandbox once it is gone.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub exit: Exit,
    pub readings: Readings,
    pub peak: Peak,
}

/// A living or ended tree of processes.
pub struct Process {
    pub group: Arc<Group>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    ended: watch::Receiver<Option<Ended>>,
}

/// A process with the daemon's ends of what it was given.
pub struct Spawned {
    pub process: Process,
    pub channel: Channel,
    /// Its `/output`, unless it ended at once.
    pub output: Option<files::Output>,
    pub slot: u32,
}

fn io(step: &'static str) -> impl Fn(std::io::Error) -> SandboxError {
    move |error| SandboxError::Failed { step, cause: error.to_string() }
}

fn os(step: &'static str) -> impl Fn(nix::errno::Errno) -> SandboxError {
    move |error| io(step)(error.into())
}

fn timed_out(limit: Duration) -> SandboxError {
    let cause = format!("the launcher did not answer within {} ms", limit.as_millis());
    SandboxError::Failed { step: "start a sandbox", cause }
}

impl Process {
    /// Has the launcher make the sandbox in slot `start.slot`. The slot is freed when all is over, here or later.
    pub async fn spawn(shared: &Arc<Shared>, mut group: Group, mut start: Start) -> Result<Spawned, SandboxError> {
        let slot = start.slot;
        let (socket, their_socket) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(os("make a socket"))?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(os("make a pipe"));
        let ((stdout, their_stdout), (stderr, their_stderr), (status, their_status)) = (pipe()?, pipe()?, pipe()?);
        for ours in [socket.as_fd(), stdout.as_fd(), stderr.as_fd(), status.as_fd()] {
            nix::fcntl::fcntl(ours, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(os("prepare a pipe"))?;
        }
        let mut fds = vec![their_socket, their_stdout, their_stderr, their_status];
        let clone = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(io("copy a descriptor"));
        if let Some(v2) = group.v2() {
            start.into_v2 = true;
            fds.push(clone(v2)?);
        }
        for tasks in group.tasks() {
            fds.push(clone(tasks)?);
        }
        group.close_entrance();
        let group = Arc::new(group);
        let limit = Duration::from_millis(shared.config.sandbox.start_timeout_ms);
        let started = tokio::time::timeout(limit, shared.launcher.start_sandbox(start, fds)).await;
        let (pid, pidfd) = match started.unwrap_or_else(|_| Err(timed_out(limit))) {
            Ok(started) => started,
            Err(error) => {
                group.kill();
                if remove_group(&group).await {
                    shared.free_slot(slot);
                }
                return Err(error);
            }
        };
        let output = files::open_output(pid).ok();
        let pidfd = Arc::new(sys::watch(pidfd, Interest::READABLE).map_err(io("watch a process"))?);
        let (tell, ended) = watch::channel(None);
        // Ends by itself when the sandbox does, which `terminate` sees to.
        tokio::spawn(reap(shared.clone(), slot, group.clone(), pidfd.clone(), status, tell));
        let channel = Channel::new(socket.into(), stdout, stderr).map_err(io("watch a sandbox"))?;
        let process = Self { group, pidfd, ended };
        // If it lives now, the pid was its own when `/output` was opened.
        let output =
            output.filter(|_| process.ended().is_none() && sys::signal(process.pidfd.get_ref().as_fd(), 0).is_ok());
        Ok(Spawned { process, channel, output, slot })
    }

    pub fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    /// Waits for the end of everything in it.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.ended.clone();
        let told = ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        told.unwrap_or(Ended { exit: Exit::default(), readings: Readings::default(), peak: Peak::default() })
    }

    fn signal(&self, signal: i32) {
        // It may have ended just now.
        let _ = sys::signal(self.pidfd.get_ref().as_fd(), signal);
    }

    /// SIGTERM to all, `grace`, SIGKILL to the first, with which the kernel ends every other in its pid namespace.
    pub async fn terminate(&self, grace: Duration) {
        let _ = self.group.thaw();
        if !grace.is_zero() {
            self.signal(libc::SIGTERM);
            if tokio::time::timeout(grace, self.wait()).await.is_ok() {
                return;
            }
        }
        self.signal(libc::SIGKILL);
        // A v1 freezer keeps even killed processes.
        let _ = self.group.thaw();
        if tokio::time::timeout(KILL_WAIT, self.wait()).await.is_err() {
            tracing::error!(
                wait_s = KILL_WAIT.as_secs(),
                "killed sandbox does not end, still waiting in the background"
            );
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(libc::SIGKILL);
            let _ = self.group.thaw();
        }
    }
}

/// Waits for the end of the first process, which comes after that of all others, and cleans up.
async fn reap(
    shared: Arc<Shared>,
    slot: u32,
    group: Arc<Group>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    status: OwnedFd,
    tell: watch::Sender<Option<Ended>>,
) {
    let _ = pidfd.readable().await;
    let mut exit = exit_from(&status);
    // A group that was never charged with anything can't have been out of memory.
    exit.out_of_memory = group.meter().oom_kills() > 0 && exit.code.is_none_or(|code| code != 0);
    let ended = Ended { exit, readings: group.meter().readings(), peak: group.meter().peak() };
    shared.launcher.release(slot).await;
    if remove_group(&group).await {
        shared.free_slot(slot);
    } else {
        // The slot's ids stay taken, so that nobody else gets them.
        tracing::error!(slot, "control group of an ended sandbox can't be removed");
    }
    let _ = tell.send(Some(ended));
}

async fn remove_group(group: &Group) -> bool {
    for _ in 0..REMOVE_TRIES {
        if group.remove() {
            return true;
        }
        tokio::time::sleep(REMOVE_RETRY).await;
    }
    false
}

/// How the runtime ended, by the word of the sandbox's first process; killed where there is no word.
fn exit_from(status: &OwnedFd) -> Exit {
    let mut raw = [0; 4];
    match nix::unistd::read(status, &mut raw) {
        Ok(4) => {
            let raw = i32::from_le_bytes(raw);
            let signal = raw & 0x7f;
            if signal == 0 {
                Exit { code: Some((raw >> 8) & 0xff), ..Exit::default() }
            } else {
                Exit { signal: Some(signal), ..Exit::default() }
            }
        }
        _ => Exit { signal: Some(libc::SIGKILL), ..Exit::default() },
    }
}
