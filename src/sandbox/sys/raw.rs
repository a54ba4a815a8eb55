//! System calls without libc, of which the caller's thread knows nothing: no `errno`, no locks, no signals held back.
//!
//! Compiled twice, into the daemon and into the library that a zygote preloads (zygote.rs beside this file), where there is no
//! standard library; so this file and those it is compiled with there use nothing but `core`.
#![allow(dead_code, reason = "each of the two needs a part of it")]

use core::arch::asm;

/// What a system call failed with, as in errno(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

pub const EINVAL: Errno = Errno(22);
pub const ENOSYS: Errno = Errno(38);

/// Their numbers. A test compares them with those that libc knows.
#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const EXIT: usize = 60;
    pub const WAIT4: usize = 61;
    pub const FCNTL: usize = 72;
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const GETPID: usize = 39;
    pub const SETSID: usize = 112;
    pub const SCHED_SETSCHEDULER: usize = 144;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPSET: usize = 126;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const KEYCTL: usize = 250;
    pub const OPENAT: usize = 257;
    pub const SET_ROBUST_LIST: usize = 273;
    pub const GET_ROBUST_LIST: usize = 274;
    pub const DUP3: usize = 292;
    pub const PRLIMIT64: usize = 302;
    pub const SETNS: usize = 308;
    pub const SECCOMP: usize = 317;
    pub const RSEQ: usize = 334;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
}

/// Their numbers. A test compares them with those that libc knows.
#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const READ: usize = 63;
    pub const CLOSE: usize = 57;
    pub const SENDMSG: usize = 211;
    pub const RECVMSG: usize = 212;
    pub const EXIT: usize = 93;
    pub const WAIT4: usize = 260;
    pub const FCNTL: usize = 25;
    pub const WRITE: usize = 64;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const GETPID: usize = 172;
    pub const SETSID: usize = 157;
    pub const SCHED_SETSCHEDULER: usize = 119;
    pub const SETGROUPS: usize = 159;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const CAPSET: usize = 91;
    pub const PRCTL: usize = 167;
    pub const EXIT_GROUP: usize = 94;
    pub const KEYCTL: usize = 219;
    pub const OPENAT: usize = 56;
    pub const SET_ROBUST_LIST: usize = 99;
    pub const GET_ROBUST_LIST: usize = 100;
    pub const DUP3: usize = 24;
    pub const PRLIMIT64: usize = 261;
    pub const SETNS: usize = 268;
    pub const SECCOMP: usize = 277;
    pub const RSEQ: usize = 293;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
}

/// One system call.
///
/// # Safety
/// What the call does with its arguments must be sound: pointers lead to what it reads or writes, for as long as it runs.
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel keeps all registers but those named; memory is the caller's promise.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-(result as i32))) } else { Ok(result as usize) }
}

/// A system call whose arguments are numbers and descriptors, and none of whose effects is on memory.
///
/// # Safety
/// It must be one of those, and what it changes of the process must be the caller's to change.
pub unsafe fn plain(number: usize, arguments: &[usize]) -> Result<usize, Errno> {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = *argument;
    }
    // SAFETY: the caller's promise.
    unsafe { call(number, all) }
}

/// Ends the process at once.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: an integer; it does not come back.
        let _ = unsafe { plain(number::EXIT_GROUP, &[code as usize]) };
    }
}

pub fn close(fd: i32) {
    // SAFETY: the callers close what they own.
    let _ = unsafe { plain(number::CLOSE, &[fd as usize]) };
}

/// Bytes read; 0: the end.
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most as much as the buffer holds.
    unsafe { plain(number::READ, &[fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]) }
}

pub fn write(fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads as much as there is.
    unsafe { plain(number::WRITE, &[fd as usize, bytes.as_ptr() as usize, bytes.len()]) }
}

/// Descriptors that come with one message at the most.
pub const DESCRIPTORS_MAX: usize = 16;

/// struct iovec of <linux/uio.h>.
#[repr(C)]
struct Part {
    base: usize,
    length: usize,
}

/// struct user_msghdr of <linux/socket.h>.
#[repr(C)]
struct Message {
    name: usize,
    name_length: i32,
    parts: usize,
    part_count: usize,
    control: usize,
    control_length: usize,
    flags: u32,
}

/// struct cmsghdr of <linux/socket.h> with descriptors behind it.
#[repr(C)]
#[derive(Default)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; DESCRIPTORS_MAX],
}

const CONTROL_HEAD_BYTES: usize = 16;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
const MSG_NOSIGNAL: usize = 0x4000;

impl Message {
    fn new(part: &Part) -> Self {
        let parts = core::ptr::from_ref(part) as usize;
        Self { name: 0, name_length: 0, parts, part_count: 1, control: 0, control_length: 0, flags: 0 }
    }
}

/// Sends one message, with a descriptor or without.
pub fn send(socket: i32, bytes: &[u8], descriptor: Option<i32>) -> Result<(), Errno> {
    let part = Part { base: bytes.as_ptr() as usize, length: bytes.len() };
    let mut control =
        Control { length: CONTROL_HEAD_BYTES + 4, level: SOL_SOCKET, kind: SCM_RIGHTS, ..Control::default() };
    control.descriptors[0] = descriptor.unwrap_or(-1);
    let mut message = Message::new(&part);
    if descriptor.is_some() {
        message.control = core::ptr::from_ref(&control) as usize;
        // Space for one descriptor, as long as its alignment wants it.
        message.control_length = CONTROL_HEAD_BYTES + 8;
    }
    let message = core::ptr::from_ref(&message) as usize;
    // SAFETY: `message` leads to parts that live through the call, which only reads them.
    unsafe { plain(number::SENDMSG, &[socket as usize, message, MSG_NOSIGNAL]) }.map(drop)
}

/// A message's length, 0 when the other side is gone, and its descriptors, closed at exec, of which so many count.
pub fn receive(socket: i32, buffer: &mut [u8]) -> Result<(usize, [i32; DESCRIPTORS_MAX], usize), Errno> {
    let part = Part { base: buffer.as_mut_ptr() as usize, length: buffer.len() };
    let mut control = Control::default();
    let mut message = Message::new(&part);
    message.control = &raw mut control as usize;
    message.control_length = size_of::<Control>();
    let at = &raw mut message as usize;
    // SAFETY: the kernel writes into `buffer` and `control`, no more than each holds, and into `message`.
    let length = unsafe { plain(number::RECVMSG, &[socket as usize, at, MSG_CMSG_CLOEXEC]) }?;
    // SAFETY: what the kernel wrote is plain numbers; read through pointers, since it wrote behind the compiler's back.
    let (control, message) = unsafe { ((&raw const control).read_volatile(), (&raw const message).read_volatile()) };
    let came =
        message.control_length >= CONTROL_HEAD_BYTES && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS;
    let count = if came { control.length.saturating_sub(CONTROL_HEAD_BYTES) / 4 } else { 0 };
    Ok((length, control.descriptors, count.min(DESCRIPTORS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernel_s() {
        let known = [
            (number::READ, libc::SYS_read),
            (number::CLOSE, libc::SYS_close),
            (number::SENDMSG, libc::SYS_sendmsg),
            (number::RECVMSG, libc::SYS_recvmsg),
            (number::EXIT, libc::SYS_exit),
            (number::WAIT4, libc::SYS_wait4),
            (number::FCNTL, libc::SYS_fcntl),
            (number::WRITE, libc::SYS_write),
            (number::RT_SIGPROCMASK, libc::SYS_rt_sigprocmask),
            (number::GETPID, libc::SYS_getpid),
            (number::SETSID, libc::SYS_setsid),
            (number::SETGROUPS, libc::SYS_setgroups),
            (number::SETRESUID, libc::SYS_setresuid),
            (number::SETRESGID, libc::SYS_setresgid),
            (number::CAPSET, libc::SYS_capset),
            (number::PRCTL, libc::SYS_prctl),
            (number::EXIT_GROUP, libc::SYS_exit_group),
            (number::KEYCTL, libc::SYS_keyctl),
            (number::OPENAT, libc::SYS_openat),
            (number::SET_ROBUST_LIST, libc::SYS_set_robust_list),
            (number::GET_ROBUST_LIST, libc::SYS_get_robust_list),
            (number::DUP3, libc::SYS_dup3),
            (number::PRLIMIT64, libc::SYS_prlimit64),
            (number::SETNS, libc::SYS_setns),
            (number::SECCOMP, libc::SYS_seccomp),
            (number::RSEQ, libc::SYS_rseq),
            (number::PIDFD_OPEN, libc::SYS_pidfd_open),
            (number::CLONE3, libc::SYS_clone3),
            (number::CLOSE_RANGE, libc::SYS_close_range),
            (number::LANDLOCK_CREATE_RULESET, libc::SYS_landlock_create_ruleset),
            (number::LANDLOCK_ADD_RULE, libc::SYS_landlock_add_rule),
            (number::LANDLOCK_RESTRICT_SELF, libc::SYS_landlock_restrict_self),
        ];
        assert!(known.iter().all(|(ours, libc)| *ours as i64 == *libc), "{known:?}");
    }

    #[test]
    fn a_failure_is_told_by_its_number() {
        assert_eq!(read(-1, &mut [0]), Err(Errno(libc::EBADF)));
    }

    #[test]
    fn a_descriptor_goes_along_with_a_message() {
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixDatagram;
        let (here, there) = UnixDatagram::pair().unwrap();
        send(here.as_raw_fd(), b"take", Some(here.as_raw_fd())).unwrap();
        send(here.as_raw_fd(), b"nothing", None).unwrap();
        let mut buffer = [0; 16];
        let (length, descriptors, count) = receive(there.as_raw_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], count), (&b"take"[..], 1));
        assert!(descriptors[0] > 2);
        close(descriptors[0]);
        let (length, _, count) = receive(there.as_raw_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], count), (&b"nothing"[..], 0));
    }
}
