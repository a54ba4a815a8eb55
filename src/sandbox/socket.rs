//! A local socket that is watched for what comes, and for room only while something is left to send.
//!
//! Whoever watches for room always is woken whenever the other side takes something: once more for every message, and on the other
//! side's own processor, just as it begins to work on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys;

pub struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Takes a nonblocking descriptor.
    pub fn watch(fd: OwnedFd) -> io::Result<Self> {
        sys::watch(fd, Interest::READABLE).map(Self)
    }

    /// Returns when there is something to read or the other side is gone; at once until a read found nothing.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// `WouldBlock` without a system call where it is known that there is nothing.
    pub fn try_read<T>(&self, read: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        self.0.try_io(Interest::READABLE, |fd| read(fd.as_fd()))
    }

    /// Another descriptor for it, to wait for room with.
    pub fn room(&self) -> io::Result<Room> {
        sys::watch(self.0.get_ref().try_clone()?, Interest::WRITABLE).map(Room)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

pub struct Room(AsyncFd<OwnedFd>);

impl Room {
    /// Writes once there is room. Nothing is written where the future is dropped.
    pub async fn write<T>(&self, mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| write(fd.as_fd())) {
                return written;
            }
        }
    }
}
