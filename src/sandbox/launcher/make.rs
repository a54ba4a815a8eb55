//! From the wish for a sandbox to a runtime that has begun in it: forked from a zygote if one offers such, else executed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;

use super::child::{self, Given, Plan, ROOT_INSIDE, Runtime, USER_INSIDE};
use super::moulds::Moulds;
use super::networks::Network;
use super::protocol::{Reply, Root, Start};
use super::serve::{Launcher, failed, reply};
use super::template::{Step, StepError};
use super::zygote::{ORDER_MAX, Zygote};
use crate::sandbox::sys::order::{BEGUN, DESCRIPTORS, FAILED, Order};
use crate::sandbox::sys::{self, Cloned};

/// A sandbox whose runtime has not begun yet.
pub struct Starting {
    slot: u32,
    pid: i32,
    pidfd: OwnedFd,
    /// Closes when the runtime begins; before that, carries the filter's listener or the sentence of a failed step.
    pub failure: OwnedFd,
    since: Instant,
    forked: Option<Forked>,
}

impl Starting {
    /// The zygote that lets it wait for too long.
    pub fn waits_for(&self) -> Option<usize> {
        self.forked.as_ref().filter(|_| self.since.elapsed() > ORDER_MAX).map(|forked| forked.zygote)
    }
}

/// What is kept of a sandbox whose runtime a zygote was told to fork, until it has: if it can't, the sandbox is made again from this.
struct Forked {
    zygote: usize,
    start: Start,
    given: Given,
}

/// A sandbox's first process, which waits.
struct First {
    pid: i32,
    pidfd: OwnedFd,
    failure: OwnedFd,
    /// The other end, which a zygote gets as well.
    failure_theirs: OwnedFd,
    go: OwnedFd,
}

impl First {
    /// Writes its id maps and lets it build its walls.
    fn go_on(self, user_namespace: bool, start: &Start) -> Result<Starting, StepError> {
        if user_namespace {
            map_ids(self.pid, start.uid)?;
        }
        nix::unistd::write(&self.go, b"1").step("let the sandbox go on")?;
        let Self { pid, pidfd, failure, .. } = self;
        Ok(Starting { slot: start.slot, pid, pidfd, failure, since: Instant::now(), forked: None })
    }
}

/// How a runtime came to begin, or did not.
enum Told {
    Begun(Option<OwnedFd>),
    /// In the sandbox's first process, or in what was to be executed.
    Failed(String),
    /// On the way through a zygote.
    NotForked(String),
}

impl Launcher {
    pub fn make(&mut self, socket: &OwnedFd, start: Start, fds: Vec<OwnedFd>) -> Result<(), StepError> {
        let given = Given::of(&start, fds)?;
        let offers = |zygote: &Zygote| start.root == Root::Run && zygote.offers(&start);
        match self.zygotes.iter().position(offers) {
            None => self.begin(&start, &given),
            Some(zygote) => {
                let (starting, ordered) = self.begin_forked(zygote, start, given)?;
                match ordered {
                    Ok(()) => self.starting.push(starting),
                    Err(error) => self.make_again(socket, starting, &error.to_string())?,
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, start: &Start, given: &Given) -> Result<(), StepError> {
        let runtime = Runtime::Executed {
            arguments: child::c_strings(&start.arguments).step("read arguments")?,
            environment: child::c_strings(&start.environment).step("read environment")?,
        };
        let first = self.clone_first(start, given, runtime)?;
        let starting = first.go_on(self.setup.user_namespace, start)?;
        self.starting.push(starting);
        Ok(())
    }

    /// The zygote is told before the sandbox goes on, so that it forks while the other walls are built.
    fn begin_forked(
        &mut self,
        zygote: usize,
        start: Start,
        given: Given,
    ) -> Result<(Starting, io::Result<()>), StepError> {
        let (walls, stand) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
        let first = self.clone_first(&start, &given, Runtime::Forked { stand })?;
        let order = Order {
            open_files_max: start.open_files_max,
            tasks_max: start.tasks_max,
            root: ROOT_INSIDE.into(),
            user: USER_INSIDE.into(),
            time_namespace: self.time_namespace.into(),
            into_v2: start.into_v2.into(),
        };
        let own: [BorrowedFd<'_>; DESCRIPTORS] = [
            first.pidfd.as_fd(),
            walls.as_fd(),
            first.failure_theirs.as_fd(),
            given.socket.as_fd(),
            given.stdout.as_fd(),
            given.stderr.as_fd(),
        ];
        let groups = given.v2.iter().chain(&given.tasks).map(AsFd::as_fd);
        let fds: Vec<_> = own.into_iter().chain(groups).collect();
        let ordered = self.zygotes[zygote].order(order, &fds);
        let starting = first.go_on(self.setup.user_namespace, &start)?;
        Ok((Starting { forked: Some(Forked { zygote, start, given }), ..starting }, ordered))
    }

    /// What a zygote could not make, without one.
    fn make_again(&mut self, socket: &OwnedFd, starting: Starting, cause: &str) -> Result<(), StepError> {
        let _ = sys::signal(starting.pidfd.as_fd(), libc::SIGKILL);
        let Some(Forked { zygote, start, given }) = starting.forked else { return Ok(()) };
        if let Some(told) = self.zygotes[zygote].failed(cause) {
            reply(socket, &told, &[]).step("tell of a zygote")?;
        }
        self.begin(&start, &given)
    }

    /// Makes the first process, which waits for the word to go on.
    fn clone_first(&mut self, start: &Start, given: &Given, runtime: Runtime) -> Result<First, StepError> {
        let missing = || StepError { step: "choose a root".into(), source: io::ErrorKind::InvalidData.into() };
        let task = self.open_slot(start.slot)?;
        let network = self.networks.take();
        let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
        let (failure, failure_theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).step("make a socket")?;
        let plan = Plan {
            launcher: self.itself.as_fd(),
            root: self.root(start.root).ok_or_else(missing)?,
            task,
            scratch: &self.scratch,
            user_namespace: self.setup.user_namespace,
            start,
            given,
            runtime,
            filters: &self.filters,
            proc_covers: &self.proc_covers,
            own_network: network.is_none(),
            time_namespace: self.time_namespace,
            landlock: self.landlock,
            go: go_read,
            failure: failure_theirs,
        };
        match self.clone_within(network, start.root, given.v2.as_ref().map(AsFd::as_fd))? {
            Cloned::Child => {
                drop(go_write);
                child::run(plan)
            }
            Cloned::Parent { pid, pidfd } => {
                Ok(First { pid, pidfd, failure, failure_theirs: plan.failure, go: go_write })
            }
        }
    }

    /// What is cloned has its network of the launcher, where none is made with it, and a copy of the launcher's mounts: so the launcher goes
    /// where these are to be had for this one clone.
    fn clone_within(
        &self,
        network: Option<Network>,
        root: Root,
        group: Option<BorrowedFd<'_>>,
    ) -> Result<Cloned, StepError> {
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if self.setup.user_namespace {
            flags |= libc::CLONE_NEWUSER;
        }
        match &network {
            Some(network) => network.enter()?,
            None => flags |= libc::CLONE_NEWNET,
        }
        let entered = self.moulds.as_ref().map_or(Ok(()), |moulds| moulds.enter(root));
        let cloned = entered.and_then(|()| {
            let cloned = sys::clone3(flags as u64, group);
            let step = match &cloned {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    "clone into new namespaces (a limit of user.max_*_namespaces is reached)"
                }
                _ => "clone into new namespaces",
            };
            cloned.step(step)
        });
        if !matches!(cloned, Ok(Cloned::Child)) {
            let left = network.map_or(Ok(()), |_| self.networks.leave());
            if self.moulds.as_ref().map_or(Ok(()), Moulds::leave).and(left).is_err() {
                // Out of place it could do nothing right; the daemon starts another.
                sys::exit(1);
            }
        }
        cloned
    }

    /// For one whose `failure` can be read.
    pub fn tell_started(&mut self, socket: &OwnedFd, starting: Starting) -> io::Result<()> {
        let slot = starting.slot;
        let done = match told_at_start(&starting.failure)? {
            Told::Begun(listener) => {
                if let Some(forked) = &starting.forked {
                    self.zygotes[forked.zygote].succeeded();
                }
                let mut fds = vec![starting.pidfd.as_fd()];
                fds.extend(listener.iter().map(AsFd::as_fd));
                let started = Reply::Started { slot, pid: starting.pid, forked: starting.forked.is_some() };
                return reply(socket, &started, &fds);
            }
            Told::NotForked(cause) if starting.forked.is_some() => self.make_again(socket, starting, &cause),
            Told::Failed(sentence) | Told::NotForked(sentence) => {
                let (step, cause) = sentence.split_once(": ").unwrap_or(("start", &sentence));
                Err(StepError { step: step.into(), source: io::Error::other(cause.to_owned()) })
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                self.release(slot);
                reply(socket, &failed(slot, error), &[])
            }
        }
    }
}

/// Waits until the runtime has begun or a step has failed.
fn told_at_start(told: &OwnedFd) -> io::Result<Told> {
    let (mut begun, mut failed) = (None, None);
    let mut packet = [0; 4096];
    loop {
        let (length, fds) = sys::receive(told, &mut packet)?;
        match &packet[..length] {
            [] => break,
            word if word == BEGUN => begun = Some(fds.into_iter().next()),
            [FAILED, a, b, c, d, step @ ..] => {
                let cause = io::Error::from_raw_os_error(i32::from_le_bytes([*a, *b, *c, *d]));
                failed.get_or_insert(Told::NotForked(format!("{}: {cause}", String::from_utf8_lossy(step))));
            }
            sentence => failed = Some(Told::Failed(String::from_utf8_lossy(sentence).into_owned())),
        }
    }
    Ok(match (failed, begun) {
        (Some(failed), _) => failed,
        (None, Some(listener)) => Told::Begun(listener),
        (None, None) => Told::NotForked("start the runtime: it was killed before it began".to_owned()),
    })
}

/// Root and the user inside become two ids of the host that nobody else has.
fn map_ids(pid: i32, first: u32) -> Result<(), StepError> {
    let map = format!("0 {first} 1\n{USER_INSIDE} {} 1\n", first + 1);
    for file in ["uid_map", "gid_map"] {
        let path = Path::new("/proc").join(pid.to_string()).join(file);
        std::fs::write(path, &map).step(format!("write {file}"))?;
    }
    Ok(())
}
