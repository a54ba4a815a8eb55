//! Inside a new sandbox: from the first instruction after clone3 to exec, in the order the kernel needs, each step saying why there.
//!
//! ```text
//! wait for the id maps → join groups → own cgroup view and clocks → mounts, new root → loopback → limits
//!   → fork ─ first process: gives up its rights, waits, reaps, reports how the runtime ended
//!          └ second process: gives up every right → Landlock → filter → exec of the runtime, or on as the native runner
//! ```

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{
    Gid, Uid, chdir, chown, execve, mkdir, pivot_root, setgroups, sethostname, setresgid, setresuid, setsid,
};

use super::landlock::Rights;
use super::proc::{self, Cover};
use super::protocol::RUNNER;
use super::template::{self, Step, StepError, c_path};
use super::{first, time};
use crate::runtime::runner;
use crate::sandbox::seccomp::Filters;
use crate::sandbox::sys;

/// Ids inside, where a sandbox has a user namespace.
const ROOT_INSIDE: u32 = 0;
pub const USER_INSIDE: u32 = 1000;

/// What a packet with the filter's listener says.
pub const LISTENER: &[u8] = b"listener";

/// All a new sandbox needs, made before the clone so that afterwards little is allocated.
pub struct Plan<'a> {
    pub root: &'a Path,
    /// The slot's shared mount, where code will appear.
    pub task: &'a Path,
    /// Options of the tmpfs that `/tmp` and `/output` are on.
    pub scratch: &'a str,
    pub user_namespace: bool,
    /// Host id of root inside.
    pub uid: u32,
    pub open_files_max: u64,
    pub tasks_max: u64,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub filters: &'a Filters,
    /// What of `/proc` is covered.
    pub proc_covers: &'a [Cover],
    /// Whether the sandbox gets clocks of its own.
    pub time_namespace: bool,
    /// What Landlock is to take away, where the kernel has it.
    pub landlock: Option<Rights>,
    /// Read one byte, then the id maps are written.
    pub go: OwnedFd,
    /// Where the filter's listener goes with [`LISTENER`] and a failing step is told, a packet each; closes on exec.
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
    // After joining, so that this group is the root of what is seen. The clocks are those of children: the runtime's.
    let clocks = if plan.time_namespace { time::NEW_TIME } else { CloneFlags::empty() };
    unshare(CloneFlags::CLONE_NEWCGROUP | clocks).step("make a cgroup and a time namespace")?;
    if plan.time_namespace {
        time::start_clocks()?;
    }
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
    sys::lock_securebits().step("lock the secure bits")?;
    sys::drop_bounding_set().step("drop the bounding set")?;
    setgroups(&[]).step("drop groups")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&first::waited_for()), None).step("block signals")?;
    if !sys::fork().step("fork the runtime")? {
        // Without a user namespace, root is the host's: the first process gets the other id of the pair.
        let own = if plan.user_namespace { root } else { plan.uid };
        first::give_up_rights(own, user, &plan.filters.first)?;
        drop((plan.failure, plan.socket, plan.stdout, plan.stderr));
        first::look_after(plan.status);
    }
    become_id(user).step("become the user")?;
    sys::drop_capabilities().step("drop capabilities")?;
    prctl::set_no_new_privs().step("forbid new privileges")?;
    if let Some(rights) = plan.landlock {
        rights.restrict()?;
    }
    install_filter(&plan)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step("unblock signals")?;
    descriptors(&plan.socket, &plan.stdout, &plan.stderr).step("place descriptors")?;
    if plan.arguments.iter().map(|argument| argument.as_bytes()).eq(RUNNER.map(str::as_bytes)) {
        become_runner();
    }
    execve(&plan.arguments[0], &plan.arguments, &plan.environment)
        .step(format!("start {}", plan.arguments[0].to_string_lossy()))
}

/// Instead of an exec, which would load and relocate this very program for some milliseconds.
fn become_runner() -> ! {
    // What an exec closes. Nothing that owns one of them is dropped any more.
    sys::close_range(crate::runtime::wire::SOCKET_FD.cast_unsigned() + 1, u32::MAX);
    let code = match sys::inherited(crate::runtime::wire::SOCKET_FD) {
        Ok(socket) => runner::run(socket, sys::fork_known),
        Err(_) => 1,
    };
    exit(code.into())
}

/// Where the kernel allows it with a listener, which goes to the launcher; its rules are the same without.
fn install_filter(plan: &Plan<'_>) -> Result<(), StepError> {
    let installed = match sys::seccomp::install_told(&plan.filters.told) {
        Ok(listener) => sys::send(&plan.failure, LISTENER, &[listener.as_fd()]).map_err(io::Error::from),
        Err(_) => sys::seccomp::install(&plan.filters.untold),
    };
    installed.step("install the system call filter")
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
    scratch(plan.scratch, user, quiet)?;
    // While the host's own is still in sight: the kernel lets nobody see more of it than there was to see.
    proc::mount_own(plan.proc_covers)?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("let go of the old root")?;
    chdir("/").step("enter the new root")
}

/// One file system of the sandbox's own, of which `/tmp` and `/output` are two directories, so that one size bounds both.
fn scratch(options: &str, user: u32, flags: MsFlags) -> Result<(), StepError> {
    let whole = Path::new(template::TMP);
    mount(Some("tmpfs"), whole, Some("tmpfs"), flags, Some(options)).step("mount a tmpfs")?;
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

/// The arguments of an exec.
pub fn c_strings(texts: &[String]) -> io::Result<Vec<CString>> {
    texts.iter().map(|text| c_path(Path::new(text))).collect()
}
