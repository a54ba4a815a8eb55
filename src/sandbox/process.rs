//! The processes of one sandbox, from outside: made through the launcher, watched until nothing is left, then cleaned up after.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cgroup::{Group, Peak, Readings};
use super::channel::Channel;
use super::driver::Shared;
use super::launch::Started;
use super::launcher::protocol::Start;
use super::quarantine::Place;
use super::{files, seccomp, sys};
use crate::ports::sandbox::{Exit, SandboxError};

/// Between SIGKILL and the last process gone; longer only if one hangs in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// A hundred processes take a while to end on what a small function has of the processor: after this they get more.
const KILL_SLOW: Duration = Duration::from_millis(200);
/// Between two tries to remove a group whose last process has just gone; doubles from the first to the last.
const REMOVE_RETRY: Duration = Duration::from_millis(1);
const REMOVE_RETRY_MAX: Duration = Duration::from_secs(5);
/// A group that is not gone after this is in quarantine.
const REMOVE_WAIT: Duration = Duration::from_secs(2);
/// Between the kernel's word that memory ran out and the end of what it chose to kill.
const OOM_WAITS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200)];

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
    slot: u32,
    place: Arc<Place>,
    ended: watch::Receiver<Option<Ended>>,
}

/// A process with the daemon's ends of what it was given.
pub struct Spawned {
    pub process: Process,
    pub channel: Channel,
    /// Its `/output`, unless it ended at once.
    pub output: Option<files::Output>,
    pub slot: u32,
    /// Whether its refused system calls are told and counted.
    pub is_counted: bool,
}

/// What tells how a sandbox ended.
struct End {
    /// Where the first process writes the runtime's wait status.
    status: OwnedFd,
    /// The forbidden system call for which it was killed.
    forbidden: Arc<OnceLock<&'static str>>,
    listening: Option<JoinHandle<Result<(), std::io::Error>>>,
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
        let memory_event = group.take_memory_event();
        group.close_entrance();
        let group = Arc::new(group);
        let limit = Duration::from_millis(shared.config.sandbox.start_timeout_ms);
        let started = tokio::time::timeout(limit, shared.launcher.start_sandbox(start, fds)).await;
        let Started { pid, pidfd, listener } = match started.unwrap_or_else(|_| Err(timed_out(limit))) {
            Ok(started) => started,
            Err(error) => {
                group.kill();
                let place = shared.quarantine.place();
                let shared = shared.clone();
                // The kernel may need a moment, for which nobody has to wait.
                tokio::spawn(async move { collect(&shared, slot, &group, &place).await });
                return Err(error);
            }
        };
        let output = files::open_output(pid).ok();
        let pidfd = Arc::new(sys::watch(pidfd, Interest::READABLE).map_err(io("watch a process"))?);
        let (tell, ended) = watch::channel(None);
        let place = shared.quarantine.place();
        let forbidden = Arc::new(OnceLock::new());
        let listening = listener.map(|listener| {
            let (pidfd, group, forbidden) = (pidfd.clone(), group.clone(), forbidden.clone());
            tokio::spawn(seccomp::listen(listener, shared.refused.clone(), move |name| {
                let _ = forbidden.set(name);
                let _ = sys::signal(pidfd.get_ref().as_fd(), libc::SIGKILL);
                let _ = group.thaw();
            }))
        });
        let is_counted = listening.is_some();
        let reaper = Reaper {
            shared: shared.clone(),
            slot,
            place: place.clone(),
            group: group.clone(),
            pidfd: pidfd.clone(),
            memory_event,
            end: End { status, forbidden, listening },
        };
        // Ends by itself when the sandbox does, which `terminate` sees to.
        tokio::spawn(reaper.run(tell));
        let channel = Channel::new(socket, stdout, stderr).map_err(io("watch a sandbox"))?;
        let process = Self { group, pidfd, slot, place, ended };
        // If it lives now, the pid was its own when `/output` was opened.
        let output =
            output.filter(|_| process.ended().is_none() && sys::signal(process.pidfd.get_ref().as_fd(), 0).is_ok());
        Ok(Spawned { process, channel, output, slot, is_counted })
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

    /// SIGTERM to all, `grace`, SIGKILL to the first, with which the kernel ends every other in its pid namespace, and then to
    /// whatever the groups still hold. Returns when all is over, or when it is clear that something does not end.
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
        if tokio::time::timeout(KILL_SLOW, self.wait()).await.is_ok() {
            return;
        }
        self.group.hurry();
        if tokio::time::timeout(KILL_WAIT, self.wait()).await.is_err() {
            self.group.kill();
            self.place.take(self.slot, "a process hangs in the kernel");
            if self.ended().is_some() {
                self.place.leave(self.slot);
            }
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

/// What waits for the end of one sandbox and cleans up after it.
struct Reaper {
    shared: Arc<Shared>,
    slot: u32,
    place: Arc<Place>,
    group: Arc<Group>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    memory_event: Option<OwnedFd>,
    end: End,
}

impl Reaper {
    /// The end of the first process comes after that of all others.
    async fn run(self, tell: watch::Sender<Option<Ended>>) {
        let Self { shared, slot, place, group, pidfd, memory_event, end } = self;
        let ran_out = tokio::select! {
            biased;
            _ = pidfd.readable() => false,
            () = out_of_memory(&group, memory_event) => {
                // As on v2 by the kernel: whole or not at all.
                let _ = sys::signal(pidfd.get_ref().as_fd(), libc::SIGKILL);
                let _ = group.thaw();
                let _ = pidfd.readable().await;
                true
            }
        };
        if let Some(listening) = &end.listening {
            listening.abort();
        }
        let mut exit = exit_from(&end.status);
        exit.forbidden_call = end.forbidden.get().copied();
        // A group that was never charged with anything can't have been out of memory.
        exit.out_of_memory = ran_out || group.meter().oom_kills() > 0 && exit.code.is_none_or(|code| code != 0);
        let ended = Ended { exit, readings: group.meter().readings(), peak: group.meter().peak() };
        shared.launcher.release(slot).await;
        // Told before the groups are gone only if those make trouble.
        let mut tell = Some(tell);
        let told = async {
            tokio::time::sleep(REMOVE_WAIT).await;
            if let Some(tell) = tell.take() {
                let _ = tell.send(Some(ended));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = collect(&shared, slot, &group, &place) => {}
            () = told => {}
        }
        if let Some(tell) = tell {
            let _ = tell.send(Some(ended));
        }
    }
}

/// Returns once the kernel has killed something of the group for want of memory, where it leaves the rest alive (v1).
async fn out_of_memory(group: &Group, event: Option<OwnedFd>) {
    let watched = event.and_then(|event| sys::watch(event, Interest::READABLE).ok());
    let Some(watched) = watched else { return std::future::pending().await };
    loop {
        let Ok(mut ready) = watched.readable().await else { return std::future::pending().await };
        let _ = ready.try_io(|event| nix::unistd::read(event, &mut [0; 8]).map_err(Into::into));
        for wait in OOM_WAITS {
            if group.meter().oom_kills() > 0 {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Removes the groups, whatever that takes, then frees the slot: only when nothing runs under its ids any more.
async fn collect(shared: &Shared, slot: u32, group: &Group, place: &Place) {
    let begun = Instant::now();
    let mut pause = REMOVE_RETRY;
    while !group.remove() {
        if begun.elapsed() > REMOVE_WAIT {
            place.take(slot, "its control group can't be removed");
            group.kill();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REMOVE_RETRY_MAX);
    }
    place.leave(slot);
    shared.free_slot(slot);
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
