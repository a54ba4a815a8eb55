//! seccomp(2): programs as the kernel wants them, and the notifications of those that tell of calls (seccomp_unotify(2)).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::sock_filter;

/// A program's instructions as the kernel has them, eight bytes each.
pub fn bytes(program: &[sock_filter]) -> &[u8] {
    // SAFETY: a sock_filter is numbers of 2, 1, 1 and 4 bytes without a gap between them.
    unsafe { std::slice::from_raw_parts(program.as_ptr().cast(), size_of_val(program)) }
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
