//! A call at the worker's end: what is to be told of it, and whoever reads that.
//!
//! The call goes on when its reader is gone, but where it still waits for a sandbox: then nobody wants it any more.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

use crate::domain::ids::InvocationId;
use crate::ports::executor::{ExecuteError, Host};
use crate::ports::sandbox::{LogSink, Stream};

use super::wire;

/// Lines that a slow reader may be behind by; what is printed beyond that is in the record alone.
pub(super) const LINES_BYTES_MAX: usize = 256 * 1024;
/// A longer line is cut.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Default)]
struct State {
    unread: BytesMut,
    ended: bool,
    reader: Option<Waker>,
}

/// Between the call and its reader.
pub(super) struct Told {
    lines: bool,
    state: Mutex<State>,
}

impl Told {
    pub fn new(lines: bool) -> Arc<Self> {
        Arc::new(Self { lines, state: Mutex::default() })
    }

    /// `false`: its reader is too far behind.
    pub fn add_line(&self, stream: Stream, line: &str) -> bool {
        let stream = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        self.add(wire::LINE, &[&[stream], &line.as_bytes()[..line.floor_char_boundary(LINE_BYTES_MAX)]])
    }

    #[cfg(test)]
    pub fn unread(&self) -> usize {
        self.state().unread.len()
    }

    fn add(&self, kind: u8, bytes: &[&[u8]]) -> bool {
        let length: usize = bytes.iter().map(|part| part.len()).sum();
        let mut state = self.state();
        if state.ended || state.unread.len() + length > LINES_BYTES_MAX {
            return false;
        }
        state.unread.extend_from_slice(&[kind]);
        state.unread.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.iter().for_each(|part| state.unread.extend_from_slice(part));
        wake(state);
        true
    }

    /// The last frame but one: it is never left out.
    pub fn tell(&self, frame: &[u8]) {
        let mut state = self.state();
        if !state.ended {
            state.unread.extend_from_slice(frame);
            wake(state);
        }
    }

    /// The last frame; only the first of them counts.
    pub fn end(&self, frame: Bytes) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.ended, true) {
            if state.unread.is_empty() {
                state.unread = BytesMut::from(frame);
            } else {
                state.unread.extend_from_slice(&frame);
            }
            wake(state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole frames are added, or a panic of the allocator's ends the process anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.state();
        if !state.unread.is_empty() {
            return Poll::Ready(Some(state.unread.split().freeze()));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl LogSink for Told {
    fn line(&self, stream: Stream, line: &str) {
        if self.lines {
            self.add_line(stream, line);
        }
    }

    fn is_heard(&self) -> bool {
        self.lines
    }

    fn waits(&self) {
        self.add(wire::WAITS, &[]);
    }

    fn begins(&self) {
        self.add(wire::BEGINS, &[]);
    }
}

/// Ends a call's answer even if the call panics.
pub(super) struct Ending(pub Arc<Told>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(wire::refused(ExecuteError::Platform("the call ended without an outcome".to_owned())));
    }
}

/// The reader's end.
pub(super) struct Reading {
    told: Arc<Told>,
    /// Whose call nobody wants any more, if it still waits when the reader is gone.
    waits: Option<(Arc<dyn Host>, InvocationId)>,
}

impl Reading {
    pub fn new(told: Arc<Told>, host: Arc<dyn Host>, id: InvocationId) -> Self {
        Self { told, waits: Some((host, id)) }
    }

    /// Of what belongs to another caller.
    pub fn following(told: Arc<Told>) -> Reply {
        Reply::Parts(None, Self { told, waits: None })
    }

    /// When there is something to tell: all of it, as a rule.
    pub async fn begun(self) -> Reply {
        let first = poll_fn(|context| self.told.poll(context)).await;
        let ended = self.told.state().ended;
        match first {
            Some(first) if ended => Reply::Whole(Some(first)),
            first => Reply::Parts(first, self),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some((host, id)) = &self.waits
            && !self.told.state().ended
        {
            host.withdraw(*id);
        }
    }
}

/// The body of an answer.
pub enum Reply {
    Whole(Option<Bytes>),
    #[allow(private_interfaces, reason = "made and read in this room")]
    Parts(Option<Bytes>, Reading),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Reply::Whole(bytes) => Poll::Ready(bytes.take()),
            Reply::Parts(first, reading) => match first.take() {
                Some(first) => Poll::Ready(Some(first)),
                None => reading.told.poll(context),
            },
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Reply::Parts(..) => SizeHint::default(),
        }
    }
}
