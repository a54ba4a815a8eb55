//! The library that a zygote preloads: its fork(2) returns in sandboxes only.
//!
//! Built by `build.rs` into a shared library of its own, without a standard library and without libc; no part of the daemon's own module
//! tree. A zygote is an interpreter that has loaded what its shim needs and then calls `os.fork()`, so that the interpreter's own hooks
//! before and after a fork run. What is called then is [`fork`] below, which serves the launcher's orders and returns, with 0, once for
//! each sandbox: in a copy of the interpreter that stands behind the same walls as any other runtime.
//!
//! ```text
//! zygote Z: receive an order → choose the sandbox's pid namespace for children → clone M (shares memory, Z waits)
//!              └ M, pid 3 inside: clones R, the one copy of Z's memory, and ends, so that R becomes a child of the sandbox's first process
//!                   └ R, pid 2 inside: joins its groups → waits for the other walls → joins the namespaces → the last walls → returns
//! ```
//!
//! Z has run no code but the host's and the shim, and holds no secret; between orders it holds no descriptor but its socket.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod order;
mod raw;
mod walls;

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;
use core::ptr::{self, null_mut};

use order::{BEGUN, DESCRIPTORS, Order, PROGRAMS_BYTES_MAX, READY, SOCKET_FD, TERMS_BYTES, Terms};
use raw::{Errno, call, number, plain};
use walls::{Descriptors, Enclosure, Failed, LetGo, Limits, Rights};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    raw::exit(70)
}

unsafe extern "C" {
    /// dlsym(3) of the process's libc.
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

type Fork = unsafe extern "C" fn() -> c_int;

/// All that is kept. A zygote has one thread, and so has a sandbox's copy of it when it is here: nothing is ever seen half-written.
struct State {
    /// The process's own fork(2), once this process is a sandbox's.
    next: Option<Fork>,
    /// Where LD_PRELOAD stood in the environment.
    preload: *mut u8,
    preload_bytes: usize,
    terms: [u8; TERMS_BYTES + PROGRAMS_BYTES_MAX],
}

static mut STATE: State =
    State { next: None, preload: null_mut(), preload_bytes: 0, terms: [0; TERMS_BYTES + PROGRAMS_BYTES_MAX] };

const PRELOAD: &[u8; 11] = b"LD_PRELOAD=";
/// What the interpreter finds in its place, so that it knows that this library was loaded.
const LOADED: &[u8; 11] = b"FAASD_FORK=";

/// Runs before the interpreter's own code, as all of `.init_array`; the arguments are a habit of glibc's.
extern "C" fn loaded(count: c_int, arguments: *mut *mut c_char, environment: *mut *mut c_char) {
    // SAFETY: by glibc's word these are the process's own arguments and environment. Another libc passes nothing, and what lies in the
    // registers instead is very unlikely to pass the test; at worst the zygote dies, and the launcher does without.
    unsafe {
        if arguments.is_null() || count < 1 || arguments.offset(count as isize + 1) != environment {
            return;
        }
        let mut at = environment;
        while !(*at).is_null() {
            let text = CStr::from_ptr(*at).to_bytes();
            if text.starts_with(PRELOAD) {
                STATE.preload = (*at).cast();
                STATE.preload_bytes = text.len();
                ptr::copy_nonoverlapping(LOADED.as_ptr(), (*at).cast(), LOADED.len());
            }
            at = at.add(1);
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOADED_HOOK: extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = loaded;

/// Serves orders in a zygote; forks in what has come of one.
#[unsafe(no_mangle)]
pub extern "C" fn fork() -> c_int {
    // SAFETY: one thread, see `State`; `dlsym` knows fork(2) by this type.
    unsafe {
        if let Some(next) = STATE.next {
            return next();
        }
        const NEXT: *mut c_void = -1_isize as *mut c_void;
        let next = dlsym(NEXT, c"fork".as_ptr());
        if next.is_null() {
            raw::exit(71);
        }
        STATE.next = Some(transmute::<*mut c_void, Fork>(next));
        // What the interpreter copied of it, it has thrown away; this is what /proc/self/environ shows.
        if !STATE.preload.is_null() {
            ptr::write_bytes(STATE.preload, 0, STATE.preload_bytes);
        }
        serve(&mut *(&raw mut STATE.terms))
    }
}

/// The filter and Landlock's rights, as they came.
fn enclosure<'a>(terms: &Terms, programs: &'a [u8]) -> Option<Enclosure<'a>> {
    let (told, rest) = programs.split_at_checked(terms.told_bytes as usize)?;
    let (untold, _) = rest.split_at_checked(terms.untold_bytes as usize)?;
    Some(Enclosure { user: 0, rights: Rights { files: terms.files, scopes: terms.scopes }, told, untold })
}

/// Takes orders until the launcher is gone. Returns in sandboxes.
fn serve(space: &'static mut [u8]) -> c_int {
    let Ok((length, _, 0)) = raw::receive(SOCKET_FD, space) else { raw::exit(72) };
    let Some((terms, programs)) = space[..length].split_at_checked(TERMS_BYTES) else { raw::exit(72) };
    let Some(enclosure) = Terms::from_bytes(terms).and_then(|terms| enclosure(&terms, programs)) else { raw::exit(72) };
    let Some(birth) = Birth::prepare() else { raw::exit(73) };
    if raw::send(SOCKET_FD, READY, None).is_err() {
        raw::exit(0);
    }
    loop {
        let mut bytes = [0; order::ORDER_BYTES];
        let Ok((length, descriptors, count)) = raw::receive(SOCKET_FD, &mut bytes) else { raw::exit(74) };
        if length == 0 {
            raw::exit(0);
        }
        let descriptors = &descriptors[..count];
        if let (Some(order), Some(given)) = (Order::from_bytes(&bytes[..length]), Given::of(descriptors)) {
            match birth.give(&order, &given) {
                Ok(Born::Inside) => {
                    let enclosure = Enclosure { user: order.user as u32, ..enclosure };
                    if let Err(failed) = birth.settle().and_then(|()| become_runtime(&order, &given, &enclosure)) {
                        tell(given.failure, failed);
                        raw::exit(1);
                    }
                    return 0;
                }
                Ok(Born::Outside) => {}
                Err(failed) => tell(given.failure, failed),
            }
        }
        descriptors.iter().for_each(|descriptor| raw::close(*descriptor));
    }
}

/// Tells the launcher of a step that failed.
fn tell(failure: i32, failed: Failed) {
    let mut packet = [0; 128];
    let [kind, errno @ .., _] = &mut packet[..6] else { return };
    *kind = order::FAILED;
    errno.copy_from_slice(&failed.errno.0.to_le_bytes());
    let length = failed.step.len().min(packet.len() - 5);
    packet[5..5 + length].copy_from_slice(&failed.step.as_bytes()[..length]);
    // If the launcher does not listen, nobody does.
    let _ = raw::send(failure, &packet[..5 + length], None);
}

/// An order's descriptors.
struct Given<'a> {
    /// Of the sandbox's first process.
    first: i32,
    /// One byte comes when all other walls stand, and nothing if they can't.
    walls: i32,
    failure: i32,
    own: Descriptors,
    rest: &'a [i32],
}

impl<'a> Given<'a> {
    fn of(descriptors: &'a [i32]) -> Option<Self> {
        let ([first, walls, failure, socket, stdout, stderr], rest) = descriptors.split_first_chunk::<DESCRIPTORS>()?;
        let own = Descriptors { socket: *socket, stdout: *stdout, stderr: *stderr };
        Some(Self { first: *first, walls: *walls, failure: *failure, own, rest })
    }

    /// The v2 group, and the v1 `tasks` files.
    fn groups(&self, order: &Order) -> (Option<i32>, &[i32]) {
        match self.rest.split_first() {
            Some((v2, tasks)) if order.into_v2 != 0 => (Some(*v2), tasks),
            _ => (None, self.rest),
        }
    }
}

// CLONE_* of <linux/sched.h>.
const CLONE_NEWTIME: usize = 0x80;
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_NEWNS: usize = 0x2_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
const CLONE_NEWCGROUP: usize = 0x200_0000;
const CLONE_NEWUTS: usize = 0x400_0000;
const CLONE_NEWIPC: usize = 0x800_0000;
const CLONE_NEWUSER: usize = 0x1000_0000;
const CLONE_NEWPID: usize = 0x2000_0000;
const CLONE_NEWNET: usize = 0x4000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// struct clone_args of <linux/sched.h>.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Pids inside: the runtime's is what it would be had the first process forked it.
static RUNTIME: i32 = 2;
static BETWEEN: i32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Born {
    Inside,
    Outside,
}

/// What libc's own fork would see to.
struct Birth {
    /// Where libc keeps the thread's id; the kernel writes the child's there.
    tid_address: usize,
    /// Head and length of the list of robust mutexes.
    robust: [usize; 2],
    /// The area of restartable sequences, if libc has registered one.
    rseq: Option<[usize; 2]>,
    /// This process, to go back to its own pid namespace.
    own: usize,
}

impl Birth {
    /// `None`: the kernel doesn't tell what has to be known.
    fn prepare() -> Option<Self> {
        const GET_TID_ADDRESS: usize = 40;
        let (mut tid_address, mut robust) = (0_usize, [0_usize; 2]);
        // SAFETY: the kernel writes a pointer to the first and two words to the others; read again through pointers.
        unsafe {
            plain(number::PRCTL, &[GET_TID_ADDRESS, &raw mut tid_address as usize]).ok()?;
            let (head, length) = (&raw mut robust as usize, &raw mut robust[1] as usize);
            plain(number::GET_ROBUST_LIST, &[0, head, length]).ok()?;
            let (tid_address, robust) = ((&raw const tid_address).read_volatile(), (&raw const robust).read_volatile());
            let pid = plain(number::GETPID, &[]).ok()?;
            let own = plain(number::PIDFD_OPEN, &[pid, 0]).ok()?;
            (tid_address != 0).then_some(Self { tid_address, robust, rseq: rseq(), own })
        }
    }

    /// Makes the copy.
    fn give(&self, order: &Order, given: &Given<'_>) -> Result<Born, Failed> {
        let step = |step: &'static str| move |errno: Errno| Failed { step, errno };
        // SAFETY: a descriptor and a number; only the place of later children changes.
        unsafe { plain(number::SETNS, &[given.first as usize, CLONE_NEWPID]) }
            .map_err(step("choose the sandbox's pid namespace"))?;
        let born = self.fork_twice(given.groups(order).0);
        if born != Ok(Born::Inside) {
            // SAFETY: as above.
            let _ = unsafe { plain(number::SETNS, &[self.own, CLONE_NEWPID]) };
        }
        born.map_err(step("fork the zygote"))
    }

    #[cfg(target_arch = "x86_64")]
    fn fork_twice(&self, group: Option<i32>) -> Result<Born, Errno> {
        const WAIT_FOR_ALL: usize = 0x4000_0000;
        let between = CloneArgs {
            flags: CLONE_VM | CLONE_VFORK,
            set_tid: &raw const BETWEEN as u64,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
        let runtime = CloneArgs {
            flags: CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | if group.is_some() { CLONE_INTO_CGROUP } else { 0 },
            child_tid: self.tid_address as u64,
            exit_signal: SIGCHLD,
            set_tid: &raw const RUNTIME as u64,
            set_tid_size: 1,
            cgroup: group.unwrap_or_default() as u64,
            ..CloneArgs::default()
        };
        let mut told = 0_isize;
        let mut result = number::CLONE3 as isize;
        // SAFETY: M shares memory and stack with this process, which stands still until M has gone; so M touches nothing but registers and
        // `told`. R goes on here with a copy of all, as after any fork.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "mov eax, {clone3}",
                "mov rdi, r12",
                "mov rsi, {size}",
                "syscall",
                "test rax, rax",
                "jz 2f",
                "mov [r13], rax",
                "xor edi, edi",
                "mov eax, {exit}",
                "syscall",
                "2:",
                clone3 = const number::CLONE3,
                exit = const number::EXIT,
                size = const size_of::<CloneArgs>(),
                inout("rax") result,
                inout("rdi") &raw const between => _,
                inout("rsi") size_of::<CloneArgs>() => _,
                in("r12") &raw const runtime,
                in("r13") &raw mut told,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        match result {
            0 => return Ok(Born::Inside),
            ..0 => return Err(Errno(-result as i32)),
            // SAFETY: only M's number; it has ended.
            pid => unsafe {
                let _ = plain(number::WAIT4, &[pid as usize, 0, WAIT_FOR_ALL, 0]);
            },
        }
        if told < 0 { Err(Errno(-told as i32)) } else { Ok(Born::Outside) }
    }

    /// Inside: tells the kernel what it forgot on the way through M.
    fn settle(&self) -> Result<(), Failed> {
        /// RSEQ_SIG of glibc's <bits/rseq.h>.
        const SIGNATURE: usize = 0x5305_3053;
        // SAFETY: what libc had registered in the zygote, at the same places of this copy.
        unsafe {
            plain(number::SET_ROBUST_LIST, &self.robust)
                .map_err(|errno| Failed { step: "register the list of mutexes", errno })?;
            if let Some([area, length]) = self.rseq {
                plain(number::RSEQ, &[area, length, 0, SIGNATURE])
                    .map_err(|errno| Failed { step: "register restartable sequences", errno })?;
            }
        }
        Ok(())
    }
}

/// Where glibc (2.35 and later) has restartable sequences, by its own word (`__rseq_offset`, `__rseq_size`).
fn rseq() -> Option<[usize; 2]> {
    /// As long as the first version's.
    const BYTES_MIN: usize = 32;
    // SAFETY: glibc's documented symbols, of these types; others don't have them.
    unsafe {
        let offset = dlsym(null_mut(), c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = dlsym(null_mut(), c"__rseq_size".as_ptr()).cast::<u32>();
        if offset.is_null() || size.is_null() || *size == 0 {
            return None;
        }
        let thread: usize;
        asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly));
        Some([thread.wrapping_add_signed(*offset), BYTES_MIN])
    }
}

/// Inside: everything that makes a sandbox's runtime of a copy of the zygote.
fn become_runtime(order: &Order, given: &Given<'_>, enclosure: &Enclosure<'_>) -> Result<(), Failed> {
    let step = |step: &'static str| move |errno: Errno| Failed { step, errno };
    for tasks in given.groups(order).1 {
        // "0" is the writer itself; a pid written by somebody else waits for a grace period of milliseconds.
        raw::write(*tasks, b"0").map_err(step("join a control group"))?;
    }
    if raw::read(given.walls, &mut [0]).map_err(step("wait for the walls"))? == 0 {
        // The first process has said why.
        raw::exit(1);
    }
    let mut spaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    if order.time_namespace != 0 {
        spaces |= CLONE_NEWTIME;
    }
    // SAFETY: a descriptor and a number; all that this process had open, root and working directory included, is replaced here and below.
    unsafe { call(number::SETNS, [given.first as usize, spaces, 0, 0, 0, 0]) }.map_err(step("join the namespaces"))?;
    walls::become_id(order.root as u32).map_err(step("become root inside"))?;
    walls::part(Limits { open_files_max: order.open_files_max, tasks_max: order.tasks_max })?;
    walls::enclose(enclosure, given.failure, BEGUN)?;
    walls::place(given.own, LetGo::Now)
}
