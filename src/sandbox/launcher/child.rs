//! Inside a new sandbox: from the first instruction after clone3 to exec, in the order the kernel needs, each step saying why there.
//!
//! ```text
//! wait for the id maps → join groups → own cgroup view → mounts, new root → loopback → limits → give up rights → filter
//!   → fork ─ first process: waits, reaps, reports how the runtime ended
//!          └ second process: exec of the runtime
//! ```

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, chdir, chown, execve, mkdir, pivot_root, setgroups, sethostname, setresgid, setresuid, setsid,
};
use seccompiler::BpfProgram;

use super::template::{self, Step, StepError, c_path};
use crate::sandbox::sys;

/// Ids inside, where a sandbox has a user namespace.
const ROOT_INSIDE: u32 = 0;
pub const USER_INSIDE: u32 = 1000;

/// All a new sandbox needs, made before the clone so that afterwards little is allocated.
pub struct Plan<'a> {
    pub root: &'a Path,
    /// The slot's shared mount, where code will appear.
    pub task: &'a Path,
    pub user_namespace: bool,
    /// Host id of root inside.
    pub uid: u32,
    pub open_files_max: u64,
    pub tasks_max: u64,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub filters: &'a [BpfProgram],
    /// Read one byte, then the id maps are written.
    pub go: OwnedFd,
    /// Where a failing step is told; closes on exec.
    pub failure: OwnedFd,
    /// Socket, stdout, stderr.
    pub socket: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where the first process tells how the second ended: its wait status, four bytes.
    pub status: OwnedFd,
    /// v1 `tasks` files.
    pub tasks: Vec<OwnedFd>,
}

/// Never returns.
pub fn run(plan: Plan<'_>) -> ! {
    let failure = plan.failure.try_clone();
    let Err(error) = enter(plan);
    if let Ok(failure) = failure {
        let _ = std::fs::File::from(failure).write_all(error.to_string().as_bytes());
    }
    exit(1)
}

fn exit(code: i32) -> ! {
    // No destructors and no exit handlers: they are the launcher's.
    sys::exit(code)
}

fn enter(mut plan: Plan<'_>) -> Result<std::convert::Infallible, StepError> {
    // If the launcher dies, so does everything in here: this process is the namespace's init.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask for the parent-death signal")?;
    let mut byte = [0];
    nix::unistd::read(&plan.go, &mut byte).step("wait for the id maps")?;
    for tasks in std::mem::take(&mut plan.tasks) {
        // "0" is the writer itself; a pid written by somebody else waits for a grace period of milliseconds.
        std::fs::File::from(tasks).write_all(b"0").step("join a control group")?;
    }
    // After joining, so that this group is the root of what is seen.
    unshare(CloneFlags::CLONE_NEWCGROUP).step("make a cgroup namespace")?;
    let (root, user) = if plan.user_namespace { (ROOT_INSIDE, USER_INSIDE) } else { (0, plan.uid + 1) };
    if plan.user_namespace {
        become_id(root).step("become root inside")?;
    }
    mounts(&plan, user)?;
    sys::loopback_up().step("bring up loopback")?;
    sethostname("sandbox").step("set the host name")?;
    limits(plan.open_files_max, plan.tasks_max).step("set resource limits")?;
    setsid().step("start a session")?;
    // Where the id's quota of keys is used up for a moment, it stays in the launcher's, which is empty too.
    let _ = sys::join_session_keyring();
    sys::drop_bounding_set().step("drop the bounding set")?;
    setgroups(&[]).step("drop groups")?;
    become_id(user).step("become the user")?;
    sys::drop_capabilities().step("drop capabilities")?;
    prctl::set_no_new_privs().step("forbid new privileges")?;
    // A change of ids has cleared it.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask for the parent-death signal")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&waited_for()), None).step("block signals")?;
    for filter in plan.filters {
        seccompiler::apply_filter(filter).map_err(io::Error::other).step("install the system call filter")?;
    }
    if !sys::fork().step("fork the runtime")? {
        drop((plan.failure, plan.socket, plan.stdout, plan.stderr));
        be_init(plan.status);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step("unblock signals")?;
    descriptors(&plan.socket, &plan.stdout, &plan.stderr).step("place descriptors")?;
    execve(&plan.arguments[0], &plan.arguments, &plan.environment)
        .step(format!("start {}", plan.arguments[0].to_string_lossy()))
}

fn become_id(id: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

fn mounts(plan: &Plan<'_>, user: u32) -> Result<(), StepError> {
    let none = None::<&str>;
    if !plan.user_namespace {
        // With one this copy of the mounts only follows the launcher's. Without, what is let go of below would go there too, and with it
        // the code of every other sandbox.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).step("part from the launcher's mounts")?;
    }
    // Mounts that came from a more privileged namespace are locked in place; a fresh copy of the tree is not, and can become the root.
    mount(Some(plan.root), plan.root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).step("copy the root")?;
    chdir(plan.root).step("enter the root")?;
    // What the launcher mounts in the slot from now on shows up here too, and nothing goes the other way.
    let task = Path::new("..").join(plan.task);
    mount(Some(&task), template::TASK, none, MsFlags::MS_BIND, none).step("mount /var/task")?;
    mount(none, template::TASK, none, MsFlags::MS_SLAVE, none).step("follow the slot")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    scratch(user, quiet)?;
    // While the host's own is still in sight: the kernel lets nobody see more of it than there was to see.
    mount(Some("proc"), template::PROC, Some("proc"), quiet | MsFlags::MS_NOEXEC, none).step("mount /proc")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the old root")?;
    chdir("/").step("enter the new root")
}

/// What the tmpfs may hold until the daemon sizes it for a version: nobody's code has run before that.
const SCRATCH_AT_START: &str = "mode=0755,size=1m,nr_inodes=256";

/// One file system of the sandbox's own, of which `/tmp` and `/output` are two directories, so that one size bounds both.
fn scratch(user: u32, flags: MsFlags) -> Result<(), StepError> {
    let whole = Path::new(template::TMP);
    mount(Some("tmpfs"), whole, Some("tmpfs"), flags, Some(SCRATCH_AT_START)).step("mount a tmpfs")?;
    // `/tmp` last: it covers the whole.
    for point in [template::OUTPUT, template::TMP] {
        let part = whole.join(point);
        mkdir(&part, Mode::S_IRWXU).step(format!("make /{point}"))?;
        chown(&part, Some(Uid::from_raw(user)), Some(Gid::from_raw(user))).step(format!("give away /{point}"))?;
        mount(Some(&part), point, None::<&str>, MsFlags::MS_BIND, None::<&str>).step(format!("mount /{point}"))?;
    }
    Ok(())
}

/// Stack of a thread that does not choose; programs may raise it up to the second.
const STACK_BYTES: (u64, u64) = (8 << 20, 64 << 20);
/// Signals queued and timers armed, of which each holds kernel memory.
const SIGNALS_QUEUED_MAX: u64 = 1024;

/// Of memory, cpu, processes and I/O the control groups are in charge; these bound what no group counts. Never the size of the address
/// space: JIT compilers reserve far more of it than they use.
fn limits(open_files_max: u64, tasks_max: u64) -> nix::Result<()> {
    lower(Resource::RLIMIT_NOFILE, open_files_max, open_files_max)?;
    lower(Resource::RLIMIT_CORE, 0, 0)?;
    lower(Resource::RLIMIT_MEMLOCK, 64 * 1024, 64 * 1024)?;
    lower(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    // Counted by host id, of which each sandbox has its own: it holds where no pids group does.
    lower(Resource::RLIMIT_NPROC, tasks_max, tasks_max)?;
    lower(Resource::RLIMIT_SIGPENDING, SIGNALS_QUEUED_MAX, SIGNALS_QUEUED_MAX)?;
    lower(Resource::RLIMIT_RTPRIO, 0, 0)?;
    lower(Resource::RLIMIT_NICE, 0, 0)?;
    lower(Resource::RLIMIT_STACK, STACK_BYTES.0, STACK_BYTES.1)
}

/// Never above what this process was given itself: that would take a privilege.
fn lower(resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let (_, most) = getrlimit(resource)?;
    setrlimit(resource, soft.min(most), hard.min(most))
}

/// Puts the socket at 3, the outputs at 1 and 2, nothing at 0, and lets go of everything else at exec.
fn descriptors(socket: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    // First out of the way of the low numbers.
    let high = |fd: &OwnedFd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(16)).map_err(io::Error::from);
    let (socket, stdout, stderr) = (high(socket)?, high(stdout)?, high(stderr)?);
    let null = std::fs::File::open("/dev/null")?;
    let null = high(&null.into())?;
    for (from, to) in [(null, 0), (stdout, 1), (stderr, 2), (socket, crate::runtime::wire::SOCKET_FD)] {
        sys::place_raw(from, to)?;
    }
    sys::close_on_exec_from(4)
}

fn waited_for() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGTERM);
    set
}

/// The first process: passes SIGTERM on to all, reaps orphans, and goes when the runtime is gone, which ends whatever is left.
fn be_init(status: OwnedFd) -> ! {
    let mut status = std::fs::File::from(status);
    let Ok(kept) = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&status.as_fd())) else { exit(1) };
    if kept > 0 {
        sys::close_range(0, kept - 1);
    }
    sys::close_range(kept + 1, u32::MAX);
    // The runtime is the first child, and pids in here count from 1.
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
                    let _ = status.write_all(&raw.to_le_bytes());
                    exit(0);
                }
            },
        }
    }
}

/// The arguments of an exec.
pub fn c_strings(texts: &[String]) -> io::Result<Vec<CString>> {
    texts.iter().map(|text| c_path(Path::new(text))).collect()
}
