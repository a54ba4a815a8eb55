//! The launcher's loop: requests in, sandboxes out, one poll(2) for everything.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::child::{self, Plan, USER_INSIDE};
use super::landlock::Rights;
use super::proc::{self, Cover};
use super::protocol::{MESSAGE_BYTES_MAX, Reply, Request, Root, Scratch, Setup, Start};
use super::template::{self, Step, StepError, c_path};
use super::{namespace, time};
use crate::sandbox::cgroup;
use crate::sandbox::seccomp::Filters;
use crate::sandbox::sys::{self, Cloned, MountAttributes};

/// Runs the launcher until the daemon is gone. The exit code.
pub fn main() -> u8 {
    // Sandboxes read what is made here, under ids of their own, whatever the daemon keeps to itself.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // The daemon says when to end; a Ctrl-C meant for it must not end the sandboxes first.
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let mut set = nix::sys::signal::SigSet::empty();
        set.add(signal);
        if set.thread_block().is_err() {
            return 1;
        }
    }
    let Ok(socket) = sys::inherited(0) else {
        // Nobody to talk to: it was not the daemon that started this.
        return 2;
    };
    let mut launcher = match Launcher::start(&socket) {
        Ok(launcher) => launcher,
        Err(error) => {
            let failed = Reply::Failed { slot: None, step: error.step, cause: error.source.to_string() };
            let _ = reply(&socket, &failed, &[]);
            return 1;
        }
    };
    let ended = launcher.serve(&socket);
    launcher.end_all();
    u8::from(ended.is_err())
}

/// A sandbox whose second process has not begun yet.
struct Starting {
    slot: u32,
    pid: i32,
    pidfd: OwnedFd,
    /// Closes at exec; before that, carries the filter's listener or the sentence of a failed step.
    failure: OwnedFd,
}

struct Launcher {
    setup: Setup,
    scratch: String,
    filters: Filters,
    proc_covers: Vec<Cover>,
    time_namespace: bool,
    landlock: Option<Rights>,
    roots: [(Root, PathBuf); 2],
    slots: PathBuf,
    starting: Vec<Starting>,
    /// Slots in use, and whether code is mounted there.
    used: BTreeMap<u32, bool>,
}

fn reply(socket: &OwnedFd, message: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    sys::send(socket, &bytes, fds).map_err(io::Error::from)
}

/// `None`: the daemon is gone. `buffer` holds the longest message.
fn next_request(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let (length, fds) = sys::receive(socket, buffer)?;
    if length == 0 {
        return Ok(None);
    }
    let request = serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)?;
    Ok(Some((request, fds)))
}

impl Launcher {
    fn start(socket: &OwnedFd) -> Result<Self, StepError> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let Some((Request::Setup(setup), _)) = next_request(socket, &mut buffer).step("read the set-up")? else {
            return Err(StepError { step: "read the set-up".into(), source: io::ErrorKind::InvalidData.into() });
        };
        sys::join_session_keyring().step("leave the daemon's keyring")?;
        namespace::enter()?;
        let run = setup.run_dir.clone();
        mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=16m"))
            .step("mount run directory")?;
        // From here on paths are relative: the way to the data directory is closed to the ids that sandboxes have.
        nix::unistd::chdir(&run).step("enter run directory")?;
        let roots = [(Root::Run, PathBuf::from("root")), (Root::Build, PathBuf::from("build"))];
        for (kind, path) in &roots {
            fs::create_dir(path).step("make root")?;
            template::build(path, &setup, *kind == Root::Build)?;
        }
        let slots = PathBuf::from("slots");
        fs::create_dir(&slots).step("make slots")?;
        // To set clocks takes a right that is the sandbox's own only in its own user namespace.
        let time_namespace = setup.user_namespace && time::is_offered();
        let Scratch { bytes, inodes } = setup.scratch;
        let launcher = Self {
            scratch: format!("mode=0755,size={bytes},nr_inodes={inodes}"),
            setup,
            filters: Filters::compile(),
            proc_covers: proc::covers().step("read /proc")?,
            time_namespace,
            landlock: Rights::offered(),
            roots,
            slots,
            starting: Vec::new(),
            used: BTreeMap::new(),
        };
        reply(socket, &Reply::Ready, &[]).step("answer")?;
        Ok(launcher)
    }

    /// Until the daemon is gone (`Ok`) or something can't be mended.
    fn serve(&mut self, socket: &OwnedFd) -> io::Result<()> {
        // One for all: to get so much of the kernel anew takes longer than most requests.
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let mut waited = vec![PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            waited.extend(self.starting.iter().map(|s| PollFd::new(s.failure.as_fd(), PollFlags::POLLIN)));
            // Ended sandboxes are collected at least this often; nobody waits for it.
            match poll(&mut waited, PollTimeout::from(1000u16)) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            let asked = readable(&waited[0]);
            let begun: Vec<usize> = (1..waited.len()).filter(|i| readable(&waited[*i])).map(|i| i - 1).collect();
            for index in begun.into_iter().rev() {
                let starting = self.starting.swap_remove(index);
                self.tell_started(socket, starting)?;
            }
            while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            {
            }
            if asked {
                match next_request(socket, &mut buffer)? {
                    None => return Ok(()),
                    Some((request, fds)) => self.handle(socket, request, fds)?,
                }
            }
        }
    }

    fn handle(&mut self, socket: &OwnedFd, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        let (slot, done) = match request {
            Request::Setup(_) => return Ok(()),
            Request::Start(start) => (start.slot, self.make(&start, fds).map(|()| None)),
            Request::Mount { slot, code, scratch } => {
                let sized = match (scratch, fds.first()) {
                    (Some(scratch), Some(output)) => {
                        sys::resize_tmpfs(output.as_fd(), scratch.bytes, scratch.inodes).step("size /tmp")
                    }
                    _ => Ok(()),
                };
                let shown = sized.and_then(|()| self.show_code(slot, &code));
                (slot, shown.map(|()| Some(Reply::Mounted { slot })))
            }
            Request::Release { slot } => {
                self.release(slot);
                return Ok(());
            }
        };
        match done {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => reply(socket, &answer, &[]),
            Err(error) => {
                let cause = error.source.to_string();
                reply(socket, &Reply::Failed { slot: Some(slot), step: error.step, cause }, &[])
            }
        }
    }

    fn slot_dir(&self, slot: u32) -> PathBuf {
        self.slots.join(slot.to_string())
    }

    fn make(&mut self, start: &Start, fds: Vec<OwnedFd>) -> Result<(), StepError> {
        let missing = || StepError { step: "take descriptors".into(), source: io::ErrorKind::InvalidData.into() };
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(missing);
        let (socket, stdout, stderr, status) = (next()?, next()?, next()?, next()?);
        let v2 = if start.into_v2 { Some(next()?) } else { None };
        let task = self.open_slot(start.slot)?;
        let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
        let (failure_read, failure_write) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).step("make a socket")?;
        let plan = Plan {
            root: self.roots.iter().find(|(kind, _)| *kind == start.root).map(|(_, path)| path).ok_or_else(missing)?,
            task: &task,
            scratch: &self.scratch,
            user_namespace: self.setup.user_namespace,
            uid: start.uid,
            open_files_max: start.open_files_max,
            tasks_max: start.tasks_max,
            arguments: child::c_strings(&start.arguments).step("read arguments")?,
            environment: child::c_strings(&start.environment).step("read environment")?,
            filters: &self.filters,
            proc_covers: &self.proc_covers,
            time_namespace: self.time_namespace,
            landlock: self.landlock,
            go: go_read,
            failure: failure_write,
            socket,
            stdout,
            stderr,
            status,
            tasks: fds.collect(),
        };
        let mut flags =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if self.setup.user_namespace {
            flags |= libc::CLONE_NEWUSER;
        }
        let cloned = sys::clone3(flags as u64, v2.as_ref().map(AsFd::as_fd));
        let step = match &cloned {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                "clone into new namespaces (a limit of user.max_*_namespaces is reached)"
            }
            _ => "clone into new namespaces",
        };
        match cloned.step(step)? {
            Cloned::Child => {
                drop(go_write);
                child::run(plan)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(plan);
                if self.setup.user_namespace {
                    map_ids(pid, start.uid)?;
                }
                nix::unistd::write(&go_write, b"1").step("let the sandbox go on")?;
                self.starting.push(Starting { slot: start.slot, pid, pidfd, failure: failure_read });
                Ok(())
            }
        }
    }

    fn tell_started(&mut self, socket: &OwnedFd, starting: Starting) -> io::Result<()> {
        let (listener, sentence) = told_at_start(&starting.failure)?;
        if sentence.is_empty() {
            let mut fds = vec![starting.pidfd.as_fd()];
            fds.extend(listener.iter().map(AsFd::as_fd));
            return reply(socket, &Reply::Started { slot: starting.slot, pid: starting.pid }, &fds);
        }
        self.release(starting.slot);
        let (step, cause) = sentence.split_once(": ").unwrap_or(("start", &sentence));
        reply(socket, &Reply::Failed { slot: Some(starting.slot), step: step.into(), cause: cause.into() }, &[])
    }

    /// Makes the slot's directory a mount of its own that others can follow.
    fn open_slot(&mut self, slot: u32) -> Result<PathBuf, StepError> {
        let dir = self.slot_dir(slot);
        if self.used.contains_key(&slot) {
            self.release(slot);
        }
        if !dir.exists() {
            fs::create_dir(&dir).step("make a slot")?;
        }
        let none = None::<&str>;
        mount(Some(&dir), &dir, none, MsFlags::MS_BIND, none).step("mount a slot")?;
        self.used.insert(slot, false);
        // The sandbox's copy of the mount has the same flags.
        let closed = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(none, &dir, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | closed, none).step("close a slot")?;
        // Shared on its own, not with its siblings.
        mount(none, &dir, none, MsFlags::MS_SHARED, none).step("share a slot")?;
        Ok(dir)
    }

    fn show_code(&mut self, slot: u32, code: &Path) -> Result<(), StepError> {
        let path = |path: &Path| -> Result<CString, StepError> { c_path(path).step("read a path") };
        let tree = sys::open_tree(&path(code)?, false).step(format!("open {}", code.display()))?;
        sys::set_attributes(tree.as_fd(), MountAttributes { read_only: true, no_devices: true })
            .step("make code read-only")?;
        sys::move_mount(tree.as_fd(), &path(&self.slot_dir(slot))?).step("show code")?;
        self.used.insert(slot, true);
        Ok(())
    }

    fn release(&mut self, slot: u32) {
        let Some(code) = self.used.remove(&slot) else { return };
        let dir = self.slot_dir(slot);
        for _ in 0..1 + u8::from(code) {
            let _ = umount2(&dir, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir(&dir);
    }

    /// Kills every sandbox and waits until they and their groups are gone.
    fn end_all(&mut self) {
        self.starting.clear();
        cgroup::end_all(&self.setup.cgroup_parents);
        // Without groups to find them by, their parent-death signal ends them.
    }
}

/// Waits until the runtime has begun or a step has failed: the filter's listener, and the sentence of the step.
fn told_at_start(told: &OwnedFd) -> io::Result<(Option<OwnedFd>, String)> {
    let (mut listener, mut sentence) = (None, String::new());
    let mut packet = [0; 4096];
    loop {
        match sys::receive(told, &mut packet)? {
            (0, _) => return Ok((listener, sentence)),
            (length, fds) if &packet[..length] == child::LISTENER => listener = fds.into_iter().next(),
            (length, _) => sentence = String::from_utf8_lossy(&packet[..length]).into_owned(),
        }
    }
}

/// Root and the user inside become two ids of the host that nobody else has.
fn map_ids(pid: i32, first: u32) -> Result<(), StepError> {
    let map = format!("0 {first} 1\n{USER_INSIDE} {} 1\n", first + 1);
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), &map).step(format!("write {file}"))?;
    }
    Ok(())
}
