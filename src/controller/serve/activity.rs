//! What each connection is doing, in ticks of the server's sweep, and the stream that tells it.
//!
//! ```text
//! idle ──first byte──▶ head ──request──▶ busy ──answered──▶ idle         closed when overdue: idle, head
//!                                        any ──write blocked──▶ stalled  closed when overdue: stalled
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::Transport;

/// How many ticks each state may last.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: u32,
    pub idle: u32,
    pub write: u32,
}

pub struct Activity {
    /// A request is being answered.
    busy: AtomicBool,
    /// When the head that is being read began; 0: none is.
    head_since: AtomicU32,
    idle_since: AtomicU32,
    /// When the client stopped taking what is written; 0: it takes it. The kernel wakes a writer only when a good part of its
    /// buffer is free again, so that a reader who takes a byte now and then counts as one who takes nothing.
    stalled_since: AtomicU32,
}

impl Activity {
    pub fn new(tick: u32) -> Self {
        Self {
            busy: AtomicBool::new(false),
            head_since: AtomicU32::new(0),
            idle_since: AtomicU32::new(tick),
            stalled_since: AtomicU32::new(0),
        }
    }

    fn bytes_arrive(&self, tick: u32) {
        if !self.busy.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(tick, Ordering::Relaxed);
        }
    }

    fn write_blocks(&self, tick: u32) {
        if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(tick, Ordering::Relaxed);
        }
    }

    fn write_goes_on(&self) {
        if self.stalled_since.load(Ordering::Relaxed) != 0 {
            self.stalled_since.store(0, Ordering::Relaxed);
        }
    }

    pub fn request_begins(&self) {
        self.busy.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    pub fn request_ends(&self, tick: u32) {
        self.idle_since.store(tick, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    pub fn is_overdue(&self, tick: u32, patience: Patience) -> bool {
        let since = |started: &AtomicU32| tick.saturating_sub(started.load(Ordering::Relaxed));
        if self.stalled_since.load(Ordering::Relaxed) != 0 && since(&self.stalled_since) > patience.write {
            return true;
        }
        if self.busy.load(Ordering::Relaxed) {
            return false;
        }
        match self.head_since.load(Ordering::Relaxed) {
            0 => since(&self.idle_since) > patience.idle,
            _ => since(&self.head_since) > patience.head,
        }
    }
}

/// A stream that tells its activity.
pub struct Watched {
    stream: Transport,
    activity: Arc<Activity>,
    /// The server's coarse clock.
    tick: Arc<AtomicU32>,
}

impl Watched {
    pub fn new(stream: Transport, activity: Arc<Activity>, tick: Arc<AtomicU32>) -> Self {
        Self { stream, activity, tick }
    }

    fn told<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => self.activity.write_blocks(self.tick.load(Ordering::Relaxed)),
            Poll::Ready(_) => self.activity.write_goes_on(),
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_arrive(self.tick.load(Ordering::Relaxed));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.told(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.told(shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: 20, idle: 600, write: 60 };

    #[test]
    fn a_slow_head_is_overdue_and_a_busy_connection_is_not() {
        let activity = Activity::new(1);
        assert!(!activity.is_overdue(100, PATIENCE));
        assert!(activity.is_overdue(602, PATIENCE));
        activity.bytes_arrive(100);
        activity.bytes_arrive(110);
        assert!(!activity.is_overdue(120, PATIENCE));
        assert!(activity.is_overdue(121, PATIENCE));
        activity.request_begins();
        activity.bytes_arrive(500);
        assert!(!activity.is_overdue(9999, PATIENCE));
        activity.request_ends(9999);
        assert!(!activity.is_overdue(10_000, PATIENCE));
    }

    #[test]
    fn a_client_that_takes_nothing_is_overdue_however_busy() {
        let activity = Activity::new(1);
        activity.request_begins();
        activity.write_blocks(100);
        activity.write_blocks(150);
        assert!(!activity.is_overdue(160, PATIENCE));
        assert!(activity.is_overdue(161, PATIENCE));
        activity.write_goes_on();
        assert!(!activity.is_overdue(161, PATIENCE));
    }
}
