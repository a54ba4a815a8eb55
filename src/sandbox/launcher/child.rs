//! Inside a new sandbox: from the first instruction after clone3 to exec, in the order the kernel needs, each step saying why there.
//!
//! ```text
//! wait for the id maps → join groups → own cgroup view and clocks → mounts, new root → loopback → limits
//!   → fork ─ first process: gives up its rights, waits, reaps, reports how the runtime ended
//!          └ second process: gives up every right → Landlock → filter → exec of the runtime, or on as the native runner
//! ```
//!
//! Where a zygote forks the runtime (`super::zygote`), the first process makes none: it gives up its rights as soon as the walls stand, and
//! says so to the other, which joins it. The last walls are `sandbox::sys::walls`, for both.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, chown, execve, mkdir, pivot_root, sethostname, setsid};

use super::proc::{self, Cover};
use super::protocol::{RUNNER, Start};
use super::template::{self, Step, StepError, c_path};
use super::{first, time};
use crate::runtime::runner;
use crate::sandbox::seccomp::Filters;
use crate::sandbox::sys::order::BEGUN;
use crate::sandbox::sys::walls::{Descriptors, Enclosure, LetGo, Limits, Rights};
use crate::sandbox::sys::{self, seccomp, walls};

/// Ids inside, where a sandbox has a user namespace.
pub const ROOT_INSIDE: u32 = 0;
pub const USER_INSIDE: u32 = 1000;

/// Where a sandbox's runtime comes from.
pub enum Runtime {
    /// A program, executed in it.
    Executed { arguments: Vec<CString>, environment: Vec<CString> },
    /// A zygote, which is told here that the walls stand.
    Forked { stand: OwnedFd },
}

/// The descriptors that come with the wish for a sandbox.
pub struct Given {
    pub socket: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where the first process tells how the runtime ended: its wait status, four bytes.
    pub status: OwnedFd,
    pub v2: Option<OwnedFd>,
    /// v1 `tasks` files.
    pub tasks: Vec<OwnedFd>,
}

impl Given {
    /// In the order that [`Start`] says.
    pub fn of(start: &Start, fds: Vec<OwnedFd>) -> Result<Self, StepError> {
        let mut fds = fds.into_iter();
        let missing = || StepError { step: "take descriptors".into(), source: io::ErrorKind::InvalidData.into() };
        let mut next = || fds.next().ok_or_else(missing);
        let (socket, stdout, stderr, status) = (next()?, next()?, next()?, next()?);
        let v2 = if start.into_v2 { Some(next()?) } else { None };
        Ok(Self { socket, stdout, stderr, status, v2, tasks: fds.collect() })
    }
}

/// All a new sandbox needs, made before the clone so that afterwards little is allocated.
pub struct Plan<'a> {
    /// The launcher's pidfd.
    pub launcher: BorrowedFd<'a>,
    pub root: &'a Path,
    /// A copy of the slot's shared mount, where code will appear; attached nowhere yet.
    pub task: OwnedFd,
    /// Options of the tmpfs that `/tmp` and `/output` are on.
    pub scratch: &'a str,
    pub user_namespace: bool,
    pub start: &'a Start,
    pub given: &'a Given,
    pub runtime: Runtime,
    pub filters: &'a Filters,
    /// What of `/proc` is covered.
    pub proc_covers: &'a [Cover],
    /// Whether its network was made with it, and not ahead.
    pub own_network: bool,
    /// Whether the sandbox gets clocks of its own.
    pub time_namespace: bool,
    /// What Landlock is to take away.
    pub landlock: Rights,
    /// Read one byte, then the id maps are written.
    pub go: OwnedFd,
    /// Where [`BEGUN`] goes, with the filter's listener, and a failing step is told, a packet each; closes on exec.
    pub failure: OwnedFd,
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

fn enter(plan: Plan<'_>) -> Result<std::convert::Infallible, StepError> {
    // If the launcher dies, so does everything in here: this process is the namespace's init.
    prctl::set_pdeathsig(Signal::SIGKILL).step("ask for the parent-death signal")?;
    first::lives(plan.launcher)?;
    let mut byte = [0];
    nix::unistd::read(&plan.go, &mut byte).step("wait for the id maps")?;
    for tasks in &plan.given.tasks {
        // "0" is the writer itself; a pid written by somebody else waits for a grace period of milliseconds.
        nix::unistd::write(tasks, b"0").step("join a control group")?;
    }
    // After joining, so that this group is the root of what is seen. The clocks are those of children: the runtime's.
    let clocks = if plan.time_namespace { time::NEW_TIME } else { CloneFlags::empty() };
    unshare(CloneFlags::CLONE_NEWCGROUP | clocks).step("make a cgroup and a time namespace")?;
    if plan.time_namespace {
        time::start_clocks()?;
        if matches!(plan.runtime, Runtime::Forked { .. }) {
            time::enter()?;
        }
    }
    let (root, user) = if plan.user_namespace { (ROOT_INSIDE, USER_INSIDE) } else { (0, plan.start.uid + 1) };
    if plan.user_namespace {
        walls::become_id(root).map_err(|errno| io::Error::from_raw_os_error(errno.0)).step("become root inside")?;
    }
    mounts(&plan, user)?;
    if plan.own_network {
        sys::loopback_up().step("bring up loopback")?;
    }
    sethostname("sandbox").step("set the host name")?;
    let Start { open_files_max, tasks_max, .. } = *plan.start;
    walls::part(Limits { open_files_max, tasks_max })?;
    setsid().step("start a session")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&first::waited_for()), None).step("block signals")?;
    let (arguments, environment) = match &plan.runtime {
        Runtime::Executed { arguments, environment } if sys::fork().step("fork the runtime")? => {
            (arguments, environment)
        }
        _ => return stay(plan, root, user),
    };
    let enclosure = Enclosure {
        user,
        rights: plan.landlock,
        told: seccomp::bytes(&plan.filters.told),
        untold: seccomp::bytes(&plan.filters.untold),
    };
    walls::enclose(&enclosure, plan.failure.as_raw_fd(), BEGUN)?;
    let Given { socket, stdout, stderr, .. } = plan.given;
    let [socket, stdout, stderr] = [socket, stdout, stderr].map(AsRawFd::as_raw_fd);
    walls::place(Descriptors { socket, stdout, stderr }, LetGo::AtExec)?;
    if arguments.iter().map(|argument| argument.as_bytes()).eq(RUNNER.map(str::as_bytes)) {
        become_runner();
    }
    execve(&arguments[0], arguments, environment).step(format!("start {}", arguments[0].to_string_lossy()))
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

/// The first process, from the moment that all walls but the runtime's own stand. Returns only when a step fails.
fn stay(plan: Plan<'_>, root: u32, user: u32) -> Result<std::convert::Infallible, StepError> {
    // Without a user namespace, root is the host's: the first process gets the other id of the pair.
    let own = if plan.user_namespace { root } else { plan.start.uid };
    first::give_up_rights(own, user, &plan.filters.first, plan.launcher)?;
    if let Runtime::Forked { stand } = plan.runtime {
        std::fs::File::from(stand).write_all(b"1").step("let the runtime come in")?;
    }
    first::look_after(&plan.given.status)
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
    sys::move_mount(plan.task.as_fd(), &c_path(Path::new(template::TASK)).step("read a path")?)
        .step("mount /var/task")?;
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

/// The arguments of an exec.
pub fn c_strings(texts: &[String]) -> io::Result<Vec<CString>> {
    texts.iter().map(|text| c_path(Path::new(text))).collect()
}
