//! The last walls of a sandbox, which a process builds around itself: limits, rights, ids, Landlock, the filter, its descriptors.
//!
//! Every sandbox's first process goes through the first half and its runtime through both, whether it is about to be executed or was forked
//! by a zygote: there is no second copy of these steps. So this file is compiled twice, as [`super::raw`] is. Nothing here allocates.
#![allow(dead_code, reason = "the zygote's library needs no bounding set of its own, say")]

use super::raw::{self, EINVAL, Errno, number, plain};

/// A step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    pub step: &'static str,
    pub errno: Errno,
}

/// Names the step that a call was.
trait Named<T> {
    fn step(self, step: &'static str) -> Result<T, Failed>;
}

impl<T> Named<T> for Result<T, Errno> {
    fn step(self, step: &'static str) -> Result<T, Failed> {
        self.map_err(|errno| Failed { step, errno })
    }
}

/// What differs of the limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub open_files_max: u64,
    /// Processes and threads of its user id.
    pub tasks_max: u64,
}

/// The first half, as root inside: what first process and runtime have in common.
pub fn part(limits: Limits) -> Result<(), Failed> {
    set_limits(limits).step("set resource limits")?;
    wake_up_politely();
    // Where the id's quota of keys is used up for a moment, it stays in the launcher's, which is empty too.
    let _ = join_session_keyring();
    lock_securebits().step("lock the secure bits")?;
    drop_bounding_set().step("drop the bounding set")?;
    // SAFETY: an empty list.
    unsafe { plain(number::SETGROUPS, &[0, 0]) }.step("drop groups").map(drop)
}

/// Waking up, it no longer interrupts another in mid-work: where whoever asks is interrupted by who answers, every call is one switch
/// more. Its share of the processors stays what it was (sched(7), `SCHED_BATCH`).
fn wake_up_politely() {
    const BATCH: usize = 3;
    let priority = 0_i32;
    // SAFETY: the kernel reads a struct sched_param, which is one int. Refused, all is as before.
    let _ = unsafe { plain(number::SCHED_SETSCHEDULER, &[0, BATCH, &raw const priority as usize]) };
}

// RLIMIT_* of <asm-generic/resource.h>.
const STACK: usize = 3;
const CORE: usize = 4;
const NPROC: usize = 6;
const NOFILE: usize = 7;
const MEMLOCK: usize = 8;
const SIGPENDING: usize = 11;
const MSGQUEUE: usize = 12;
const NICE: usize = 13;
const RTPRIO: usize = 14;

/// Stack of a thread that does not choose; programs may raise it up to the second.
const STACK_BYTES: [u64; 2] = [8 << 20, 64 << 20];
const LOCKED_BYTES_MAX: u64 = 64 * 1024;
/// Signals queued and timers armed, of which each holds kernel memory.
const SIGNALS_QUEUED_MAX: u64 = 1024;

/// Of memory, cpu, processes and I/O the control groups are in charge; these bound what no group counts. Never the size of the address
/// space: JIT compilers reserve far more of it than they use.
fn set_limits(limits: Limits) -> Result<(), Errno> {
    for (resource, [soft, hard]) in [
        (NOFILE, [limits.open_files_max; 2]),
        (CORE, [0; 2]),
        (MEMLOCK, [LOCKED_BYTES_MAX; 2]),
        (MSGQUEUE, [0; 2]),
        // Counted by host id, of which each sandbox has its own: it holds where no pids group does.
        (NPROC, [limits.tasks_max; 2]),
        (SIGPENDING, [SIGNALS_QUEUED_MAX; 2]),
        (RTPRIO, [0; 2]),
        (NICE, [0; 2]),
        (STACK, STACK_BYTES),
    ] {
        let mut old = [0_u64; 2];
        // SAFETY: the kernel writes a struct rlimit64, two words, to `old`.
        unsafe { plain(number::PRLIMIT64, &[0, resource, 0, &raw mut old as usize]) }?;
        // SAFETY: written above, behind the compiler's back.
        let most = unsafe { (&raw const old).read_volatile() }[1];
        // Never above what this process was given itself: that would take a privilege.
        let new = [soft.min(most), hard.min(most)];
        // SAFETY: the kernel reads two words of `new`.
        unsafe { plain(number::PRLIMIT64, &[0, resource, &raw const new as usize, 0]) }?;
    }
    Ok(())
}

/// Leaves the session keyring that came with the parent for a new, empty one (keyctl_join_session_keyring(3)).
pub fn join_session_keyring() -> Result<(), Errno> {
    /// KEYCTL_JOIN_SESSION_KEYRING of <linux/keyctl.h>.
    const JOIN_SESSION_KEYRING: usize = 1;
    const EPERM: Errno = Errno(1);
    // SAFETY: a null name asks for an anonymous keyring; nothing else is read.
    match unsafe { plain(number::KEYCTL, &[JOIN_SESSION_KEYRING, 0]) } {
        // A kernel without keys has none to give away, and where a container forbids the call nobody inside it reaches any.
        Err(raw::ENOSYS | EPERM) => Ok(()),
        other => other.map(drop),
    }
}

// PR_* of <linux/prctl.h>.
const SET_DUMPABLE: usize = 4;
const CAPBSET_DROP: usize = 24;
const SET_SECUREBITS: usize = 28;
const SET_NO_NEW_PRIVS: usize = 38;
const CAP_AMBIENT: usize = 47;
const CAP_AMBIENT_CLEAR_ALL: usize = 4;

fn prctl(option: usize, argument: usize) -> Result<usize, Errno> {
    // SAFETY: the options used here take numbers only.
    unsafe { plain(number::PRCTL, &[option, argument]) }
}

/// Makes uid 0 an id like any other, for good: no capabilities come with it at exec, none can be kept or made ambient (capabilities(7)).
fn lock_securebits() -> Result<(), Errno> {
    // SECBIT_* of <linux/securebits.h>: NOROOT, KEEP_CAPS' lock (it stays off), NO_CAP_AMBIENT_RAISE; each lock is the next bit.
    prctl(SET_SECUREBITS, 0b11 | 1 << 5 | 0b11 << 6).map(drop)
}

/// Gives up every capability for good: bounding set and with it what an exec could bring.
///
/// Must come before the change of uid, which would take the right to shrink the bounding set.
fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..64 {
        match prctl(CAPBSET_DROP, capability) {
            Ok(_) => {}
            // The first number the kernel does not know ends the list.
            Err(EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Empties the caller's own capability sets (capset(2)).
pub fn drop_capabilities() -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let head = [VERSION_3, 0];
    // Version 3 takes two sets of three words.
    let none = [0_u32; 6];
    prctl(CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)?;
    // SAFETY: both live through the call, which only reads them.
    unsafe { plain(number::CAPSET, &[&raw const head as usize, &raw const none as usize]) }.map(drop)
}

pub fn become_id(id: u32) -> Result<(), Errno> {
    let id = id as usize;
    // SAFETY: numbers; the caller has one thread, which is the process.
    unsafe {
        plain(number::SETRESGID, &[id, id, id])?;
        plain(number::SETRESUID, &[id, id, id]).map(drop)
    }
}

/// What Landlock takes away: rights to files, and scopes (<linux/landlock.h>). No rights: there is no Landlock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    pub files: u64,
    pub scopes: u64,
}

/// What surrounds a runtime.
#[derive(Clone, Copy, Debug)]
pub struct Enclosure<'a> {
    /// Its id inside.
    pub user: u32,
    pub rights: Rights,
    /// The filter that tells of refused calls, and the one that does not: instructions as the kernel has them, eight bytes each.
    pub told: &'a [u8],
    pub untold: &'a [u8],
}

/// The second half, for the runtime alone: from here on it has no right that its code has not. `failure` is the socket on which the
/// launcher waits for `begun`, which goes there with the filter's listener, or without where the kernel allows none.
pub fn enclose(enclosure: &Enclosure<'_>, failure: i32, begun: &[u8]) -> Result<(), Failed> {
    // Its own, so that what it sends to its group reaches neither the first process nor a zygote.
    // SAFETY: no arguments; it changes the caller's session.
    unsafe { plain(number::SETSID, &[]) }.step("start a session")?;
    become_id(enclosure.user).step("become the user")?;
    drop_capabilities().step("drop capabilities")?;
    prctl(SET_NO_NEW_PRIVS, 1).step("forbid new privileges")?;
    // A change of ids has cleared it, and only an exec would set it again: the runtime's own /proc/self would be closed to it.
    prctl(SET_DUMPABLE, 1).step("be as after an exec")?;
    if enclosure.rights.files != 0 {
        restrict(enclosure.rights)?;
    }
    let listener = match filter(enclosure.told, TOLD | WAIT_KILLABLE) {
        // Once told of, a call waits through every signal but a deadly one, so that none is told twice (Linux 5.19).
        Err(EINVAL) => filter(enclosure.told, TOLD),
        other => other,
    };
    let listener = match listener {
        Ok(listener) => Some(listener as i32),
        Err(_) => {
            filter(enclosure.untold, 0).step("install the system call filter")?;
            None
        }
    };
    raw::send(failure, begun, listener).step("tell of the system call filter")?;
    if let Some(listener) = listener {
        raw::close(listener);
    }
    unblock_signals().step("unblock signals")
}

fn unblock_signals() -> Result<(), Errno> {
    const SET_MASK: usize = 2;
    let none = 0_u64;
    // SAFETY: the kernel reads one word of `none`, which is a whole set.
    unsafe { plain(number::RT_SIGPROCMASK, &[SET_MASK, &raw const none as usize, 0, 8]) }.map(drop)
}

// SECCOMP_SET_MODE_FILTER and SECCOMP_FILTER_FLAG_{NEW_LISTENER,WAIT_KILLABLE_RECV} of <linux/seccomp.h>.
const SET_MODE_FILTER: usize = 1;
const TOLD: usize = 1 << 3;
const WAIT_KILLABLE: usize = 1 << 5;

/// struct sock_fprog of <linux/filter.h>.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const u8,
}

/// Bytes of struct sock_filter.
const INSTRUCTION_BYTES: usize = 8;

/// Installs a filter in the caller, which must have given up new privileges; with [`TOLD`] the descriptor at which it tells of calls.
pub fn filter(instructions: &[u8], flags: usize) -> Result<usize, Errno> {
    let length = u16::try_from(instructions.len() / INSTRUCTION_BYTES).map_err(|_| EINVAL)?;
    let program = Program { length, instructions: instructions.as_ptr() };
    // SAFETY: `program` points at as many instructions as it says, which the kernel copies.
    unsafe { plain(number::SECCOMP, &[SET_MODE_FILTER, flags, &raw const program as usize]) }
}

// LANDLOCK_ACCESS_FS_* of <linux/landlock.h>.
const EXECUTE: u64 = 1;
pub const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
pub const TRUNCATE: u64 = 1 << 14;
pub const IOCTL_DEV: u64 = 1 << 15;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const DEVICES: u64 = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV;

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Everything may be read and executed, nothing but `/tmp`, `/output` and the devices written; in the sandbox's root, which is the
/// working directory.
fn restrict(rights: Rights) -> Result<(), Failed> {
    const PATH_BENEATH: usize = 1;
    // struct landlock_ruleset_attr as of version 6: files, network, scopes. Older kernels take longer ones whose end is zero.
    let handled = [rights.files, 0, rights.scopes];
    let size = size_of_val(&handled);
    // SAFETY: the kernel reads `size` bytes of `handled`.
    let rules = unsafe { plain(number::LANDLOCK_CREATE_RULESET, &[&raw const handled as usize, size, 0]) };
    let rules = rules.step("make Landlock rules")?;
    let writable = (rights.files, "open /tmp or /output for Landlock");
    for (directory, (allowed, opened)) in [
        (c"/", (READ, "open / for Landlock")),
        (c"tmp", writable),
        (c"output", writable),
        (c"dev", (DEVICES, "open /dev for Landlock")),
    ] {
        let parent = open(directory, O_PATH | O_DIRECTORY).step(opened)?;
        let rule = PathBeneath { allowed: allowed & rights.files, parent };
        // SAFETY: `rule` has the layout that the rule's kind wants, and lives through the call.
        let added = unsafe { plain(number::LANDLOCK_ADD_RULE, &[rules, PATH_BENEATH, &raw const rule as usize, 0]) };
        raw::close(parent);
        added.step("allow a directory by Landlock")?;
    }
    // SAFETY: a descriptor and a number.
    let restricted = unsafe { plain(number::LANDLOCK_RESTRICT_SELF, &[rules, 0]) };
    raw::close(rules as i32);
    restricted.step("restrict by Landlock").map(drop)
}

const O_CLOEXEC: usize = 0o2_000_000;
#[cfg(target_arch = "x86_64")]
const O_DIRECTORY: usize = 0o200_000;
#[cfg(target_arch = "aarch64")]
const O_DIRECTORY: usize = 0o40_000;
const O_PATH: usize = 0o10_000_000;

fn open(path: &core::ffi::CStr, flags: usize) -> Result<i32, Errno> {
    const HERE: isize = -100;
    let arguments = [HERE as usize, path.as_ptr() as usize, flags | O_CLOEXEC, 0];
    // SAFETY: the path is terminated and lives through the call.
    unsafe { plain(number::OPENAT, &arguments) }.map(|fd| fd as i32)
}

/// When the runtime lets go of all descriptors but its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    AtExec,
    Now,
}

/// A runtime's own descriptors, as they lie in the process that is to become it.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    pub socket: i32,
    pub stdout: i32,
    pub stderr: i32,
}

/// Where the runtime finds its socket (`runtime::wire::SOCKET_FD`).
const SOCKET_FD: usize = 3;

/// Puts the socket at 3, the outputs at 1 and 2, nothing at 0, and lets go of everything else.
pub fn place(descriptors: Descriptors, rest: LetGo) -> Result<(), Failed> {
    const DUP_CLOSED_AT_EXEC: usize = 1030;
    const CLOSED_AT_EXEC: usize = 1 << 2;
    const LOWEST: usize = 16;
    // First out of the way of the low numbers.
    // SAFETY: numbers; it makes a descriptor.
    let high = |fd: i32| unsafe { plain(number::FCNTL, &[fd as usize, DUP_CLOSED_AT_EXEC, LOWEST]) };
    let placed = || -> Result<(), Errno> {
        let null = high(open(c"/dev/null", 0)?)?;
        let [socket, stdout, stderr] =
            [high(descriptors.socket)?, high(descriptors.stdout)?, high(descriptors.stderr)?];
        for (from, to) in [(null, 0), (stdout, 1), (stderr, 2), (socket, SOCKET_FD)] {
            // SAFETY: the caller, which is about to become a runtime, owns the whole table.
            unsafe { plain(number::DUP3, &[from, to, 0]) }?;
        }
        let flags = if rest == LetGo::AtExec { CLOSED_AT_EXEC } else { 0 };
        // SAFETY: as above.
        unsafe { plain(number::CLOSE_RANGE, &[SOCKET_FD + 1, u32::MAX as usize, flags]) }.map(drop)
    };
    placed().step("place descriptors")
}
