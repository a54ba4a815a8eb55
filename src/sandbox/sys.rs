//! The one room where `unsafe` is allowed: system calls that no safe wrapper offers, each as a small safe function.
//!
//! Nothing here decides anything. Callers pass borrowed descriptors and get owned ones back.
#![allow(unsafe_code)]

pub mod landlock;
pub mod memory;
pub mod order;
pub mod raw;
pub mod seccomp;
pub mod walls;

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use bytes::BytesMut;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

// Constants of <linux/sched.h> and <linux/mount.h> that the libc crate lacks or has in too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// struct mount_attr of <linux/mount.h>.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Who returns from [`clone3`].
pub enum Cloned {
    /// The caller: the child's pid here, and a descriptor for it.
    Parent {
        pid: i32,
        pidfd: OwnedFd,
    },
    Child,
}

/// Like fork(2), into the new namespaces that `flags` name and, on cgroup v2, into the group `into` (clone3(2)).
///
/// The caller must be single-threaded: the child then has a whole and consistent copy of its memory.
pub fn clone3(flags: u64, into: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args asks for nothing; the kernel reads it and writes only through `pidfd`, which outlives the call.
    let result = unsafe {
        let mut args: libc::clone_args = zeroed();
        args.flags = flags | libc::CLONE_PIDFD as u64;
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if let Some(group) = &into {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = group.as_raw_fd() as u64;
        }
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        // SAFETY: the kernel has just made this descriptor for us.
        pid => Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// fork(2) for a single-threaded caller; `true` in the child.
pub fn fork() -> io::Result<bool> {
    // SAFETY: the only caller is a sandbox's first process, which has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(true),
        _ => Ok(false),
    }
}

/// The same for whoever has to know its copy by its pid; `None` in the copy, which is to become another program: SIGPIPE, which Rust
/// ignores, is at its default there. Call it where no other thread was ever started.
pub fn fork_known() -> io::Result<Option<i32>> {
    // SAFETY: the only caller is the native runner, which has one thread, so that the copy's memory is whole and no lock is held in it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: no handler is installed, only the kernel's own action.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
            Ok(None)
        }
        pid => Ok(Some(pid)),
    }
}

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A detached copy of the mount tree at `path` (open_tree(2)).
pub fn open_tree(path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: `path` is NUL-terminated and lives through the call; the descriptor returned is ours.
    unsafe {
        let fd = checked(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Attributes to set on a mount tree: see [`set_attributes`].
#[derive(Clone, Copy, Debug)]
pub struct MountAttributes {
    pub read_only: bool,
    pub no_devices: bool,
}

/// Sets attributes on a detached tree and everything below it (mount_setattr(2)); `nosuid` always.
pub fn set_attributes(tree: BorrowedFd<'_>, wanted: MountAttributes) -> io::Result<()> {
    let mut attributes = MountAttr { set: MOUNT_ATTR_NOSUID, ..MountAttr::default() };
    if wanted.read_only {
        attributes.set |= MOUNT_ATTR_RDONLY;
    }
    if wanted.no_devices {
        attributes.set |= MOUNT_ATTR_NODEV;
    }
    // SAFETY: the path is empty and terminated, `attributes` lives through the call and its size is passed.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached tree at `path` (move_mount(2)).
pub fn move_mount(tree: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: both paths are terminated and live through the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Gives the tmpfs mounted at `mount_root` another size (fspick(2), fsconfig(2), Linux 5.2). The caller may be in another mount
/// namespace, as long as it is privileged in the file system's user namespace.
pub fn resize_tmpfs(mount_root: BorrowedFd<'_>, bytes: u64, inodes: u64) -> io::Result<()> {
    // SAFETY: the path is empty and terminated; the descriptor returned is ours.
    let context = unsafe {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        let fd = checked(libc::syscall(libc::SYS_fspick, mount_root.as_raw_fd(), c"".as_ptr(), flags))?;
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    let configure = |command: u32, key: Option<&CStr>, value: Option<&CStr>| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both texts are terminated and live through the call, or are null where the command takes none.
        checked(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0)
        })
    };
    let text = |number: u64| std::ffi::CString::new(number.to_string()).map_err(io::Error::other);
    configure(FSCONFIG_SET_STRING, Some(c"size"), Some(&text(bytes)?))?;
    configure(FSCONFIG_SET_STRING, Some(c"nr_inodes"), Some(&text(inodes)?))?;
    configure(FSCONFIG_CMD_RECONFIGURE, None, None).map(drop)
}

/// Which mount an open file is on (statx(2), Linux 5.8): the same directory mounted twice has two.
pub fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the path is empty and terminated; the kernel fills `found`, which outlives the call.
    unsafe {
        let mut found: libc::statx = zeroed();
        let result =
            libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_MNT_ID, &raw mut found);
        checked(i64::from(result)).map(|_| found.stx_mnt_id)
    }
}

/// Brings up the loopback interface of the caller's network namespace.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: a socket of our own; `request` is zeroed, holds a terminated name, and lives through both calls.
    unsafe {
        let fd = checked(i64::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))?;
        let socket = OwnedFd::from_raw_fd(fd as RawFd);
        let mut request: libc::ifreq = zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        checked(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))?;
    }
    Ok(())
}

/// Closes every descriptor in `first..=last` at once, for a process that goes on with others only and drops none of these.
pub fn close_range(first: u32, last: u32) {
    // SAFETY: called by a sandbox's first process just before its wait loop, and by a native runner as it begins; neither comes back to
    // what owned them.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// The calling process's pidfd (pidfd_open(2)): readable for whoever holds it once the process has ended.
pub fn itself() -> io::Result<OwnedFd> {
    // SAFETY: integers only; what comes back is a new descriptor that nobody else owns.
    unsafe {
        let fd = checked(libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Sends `signal` to the process behind `pidfd` (pidfd_send_signal(2)).
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers but a null one, which the call allows.
    checked(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })
    .map(drop)
}

/// Descriptors in one message; the kernel's bound is 253.
pub const DESCRIPTORS_MAX: usize = 16;

/// Sends one message with descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives one message with its descriptors; 0 bytes mean that the other side is gone.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these for us, and nobody else knows their numbers.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

/// Reads into the room that `into` has, once (read(2)). 0 bytes mean that the other side is gone, or that there is no room.
pub fn read_some(fd: BorrowedFd<'_>, into: &mut BytesMut) -> io::Result<usize> {
    let room = into.spare_capacity_mut();
    // SAFETY: the kernel writes at most `room.len()` bytes to where `room` is, and so many as it says are there afterwards.
    unsafe {
        let read = checked(libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) as i64)? as usize;
        into.set_len(into.len() + read);
        Ok(read)
    }
}

/// Takes descriptor `number`, which the caller's parent put there, as owned.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl only looks. Called once, at the start of a process that was told what this descriptor is.
    unsafe {
        checked(i64::from(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC)))?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Ends the process at once: no destructors, no exit handlers.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not come back.
    unsafe { libc::_exit(code) }
}

/// Watches a descriptor for readiness.
pub fn watch(fd: OwnedFd, interest: tokio::io::Interest) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor for as long as it lives, which is what registration relies on.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
