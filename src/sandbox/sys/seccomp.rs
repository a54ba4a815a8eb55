//! seccomp(2): filters, and the notifications of those that tell of calls (seccomp_unotify(2)).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::sock_filter;

/// Installs a filter in the calling thread, which must have given up new privileges.
///
/// # Errors
/// `E2BIG` or `EINVAL`: the program is too long or wrong.
pub fn install(program: &[sock_filter]) -> io::Result<()> {
    filter(program, 0).map(drop)
}

/// Installs a filter that tells of calls, and returns the descriptor at which they are told.
///
/// # Errors
/// `EBUSY`: a filter above this one, a container's say, is listened to already. `EINVAL`: Linux before 5.0.
pub fn install_told(program: &[sock_filter]) -> io::Result<OwnedFd> {
    // Once told of, a call waits through every signal but a deadly one, so that none is told twice (Linux 5.19).
    let told = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match filter(program, told | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => filter(program, told)?,
        other => other?,
    };
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn filter(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<i64> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points at as many instructions as it says, which the kernel copies and does not write.
    super::checked(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    id: u64,
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
}

/// Whether a call waits. Without waiting.
///
/// # Errors
/// `UnexpectedEof`: nobody is left who could make one.
pub fn is_told(listener: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    super::checked(i64::from(unsafe { libc::poll(&raw mut asked, 1, 0) }))?;
    if asked.revents & libc::POLLIN != 0 {
        return Ok(true);
    }
    if asked.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(false)
}

/// Takes the next call. To be called after [`is_told`] and by one task alone: it would wait else.
///
/// # Errors
/// `ENOENT`: who made it is gone.
pub fn told(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: the kernel wants it zeroed, and fills it; a kernel that knows a longer one does not write beyond what the request's number says.
    unsafe {
        let mut call: libc::seccomp_notif = zeroed();
        let result = libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call);
        super::checked(i64::from(result))?;
        Ok(Notification { id: call.id, number: call.data.nr, architecture: call.data.arch })
    }
}

/// Has the call fail with `error`, an errno.
///
/// # Errors
/// `ENOENT`: who made it is gone.
pub fn refuse(listener: BorrowedFd<'_>, call: Notification, error: i32) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: -error, flags: 0 };
    // SAFETY: the answer lives through the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    super::checked(i64::from(result)).map(drop)
}
