//! The launcher's loop: requests in, sandboxes out, one poll(2) for everything.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::make::Starting;
use super::moulds::Moulds;
use super::networks::{self, Networks};
use super::proc::{self, Cover};
use super::protocol::{MESSAGE_BYTES_MAX, Reply, Request, Root, Scratch, Setup};
use super::template::{self, Step, StepError, c_path};
use super::zygote::Zygote;
use super::{landlock, namespace, time};
use crate::sandbox::cgroup;
use crate::sandbox::seccomp::Filters;
use crate::sandbox::sys::walls::Rights;
use crate::sandbox::sys::{self, MountAttributes};

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
    sys::memory::release_code();
    let ended = launcher.serve(&socket);
    launcher.end_all();
    u8::from(ended.is_err())
}

/// Between two looks for sandboxes that have ended.
const COLLECT: Duration = Duration::from_secs(1);

/// What lives as long as the launcher.
pub struct Launcher {
    /// Its own pidfd, by which sandboxes see whether it lives.
    pub(super) itself: OwnedFd,
    pub(super) setup: Setup,
    /// Options of the tmpfs that `/tmp` and `/output` are on.
    pub(super) scratch: String,
    pub(super) filters: Filters,
    pub(super) proc_covers: Vec<Cover>,
    pub(super) time_namespace: bool,
    pub(super) landlock: Rights,
    pub(super) zygotes: Vec<Zygote>,
    pub(super) networks: Networks,
    pub(super) moulds: Option<Moulds>,
    roots: [(Root, PathBuf); 2],
    slots: PathBuf,
    pub(super) starting: Vec<Starting>,
    /// Slots in use, and whether code is mounted there.
    used: BTreeMap<u32, bool>,
}

pub fn failed(slot: u32, error: StepError) -> Reply {
    Reply::Failed { slot: Some(slot), step: error.step, cause: error.source.to_string() }
}

pub fn reply(socket: &OwnedFd, message: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
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
        let Some((Request::Setup(mut setup), _)) = next_request(socket, &mut buffer).step("read the set-up")? else {
            return Err(StepError { step: "read the set-up".into(), source: io::ErrorKind::InvalidData.into() });
        };
        let left = sys::walls::join_session_keyring().map_err(|errno| io::Error::from_raw_os_error(errno.0));
        left.step("leave the daemon's keyring")?;
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
        let zygotes = if setup.user_namespace { std::mem::take(&mut setup.zygotes) } else { Vec::new() };
        let zygotes = zygotes.into_iter().filter_map(|kept| Zygote::new(kept.arguments, kept.environment)).collect();
        let networks = Networks::new(setup.user_namespace)?;
        let Scratch { bytes, inodes } = setup.scratch;
        let launcher = Self {
            itself: sys::itself().step("open its own pidfd")?,
            scratch: format!("mode=0755,size={bytes},nr_inodes={inodes}"),
            setup,
            filters: Filters::compile(),
            proc_covers: proc::covers().step("read /proc")?,
            time_namespace,
            landlock: landlock::offered(),
            zygotes,
            networks,
            moulds: Moulds::make(&roots)?,
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
            self.look_after_zygotes(socket)?;
            let starting = self.starting.iter().map(|s| s.failure.as_fd());
            let zygotes = self.zygotes.iter().filter_map(Zygote::socket);
            let sockets = std::iter::once(socket.as_fd()).chain(starting).chain(zygotes).chain(self.networks.coming());
            let mut waited: Vec<_> = sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // Ended sandboxes are collected at least so often; nobody waits for it.
            let patience = self.zygotes.iter().map(Zygote::patience).fold(COLLECT, Duration::min);
            let patience = if self.networks.wants_more() { patience.min(networks::QUIET) } else { patience };
            // A millisecond more, so that it is over then.
            let patience = u16::try_from(patience.as_millis() + 1).unwrap_or(u16::MAX);
            let quiet = match poll(&mut waited, PollTimeout::from(patience)) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(ready) => ready == 0,
            };
            let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            let arrived = self.networks.coming().and_then(|_| waited.pop()).is_some_and(|fd| readable(&fd));
            let asked = readable(&waited[0]);
            let (starting, zygotes) = waited[1..].split_at(self.starting.len());
            let begun: Vec<usize> = (0..starting.len()).filter(|i| readable(&starting[*i])).collect();
            let spoken = zygotes.iter().any(readable);
            if spoken {
                self.hear_zygotes(socket)?;
            }
            if arrived {
                self.networks.arrive();
            }
            if quiet && self.networks.wants_more() {
                self.networks.begin();
            }
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
            Request::Start(start) => (start.slot, self.make(socket, start, fds).map(|()| None)),
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
            Err(error) => reply(socket, &failed(slot, error), &[]),
        }
    }

    pub fn root(&self, root: Root) -> Option<&Path> {
        self.roots.iter().find(|(kind, _)| *kind == root).map(|(_, path)| path.as_path())
    }

    fn slot_dir(&self, slot: u32) -> PathBuf {
        self.slots.join(slot.to_string())
    }

    fn look_after_zygotes(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let Some(root) = self.roots.iter().find(|(kind, _)| *kind == Root::Run).map(|(_, path)| path) else {
            return Ok(());
        };
        let waiting: Vec<usize> = self.starting.iter().filter_map(Starting::waits_for).collect();
        for (index, zygote) in self.zygotes.iter_mut().enumerate() {
            let hangs = if waiting.contains(&index) { zygote.hangs() } else { None };
            let told = hangs.into_iter().chain(zygote.look_after(root, &self.filters, self.landlock));
            told.into_iter().try_for_each(|told| reply(socket, &told, &[]))?;
        }
        Ok(())
    }

    fn hear_zygotes(&mut self, socket: &OwnedFd) -> io::Result<()> {
        self.zygotes.iter_mut().filter_map(Zygote::hear).try_for_each(|told| reply(socket, &told, &[]))
    }

    /// Makes the slot's directory a mount of its own. What is mounted there later shows up in the copy that comes back, wherever that is
    /// attached.
    pub fn open_slot(&mut self, slot: u32) -> Result<OwnedFd, StepError> {
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
        sys::open_tree(&c_path(&dir).step("read a path")?, false).step("copy a slot")
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

    pub fn release(&mut self, slot: u32) {
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
