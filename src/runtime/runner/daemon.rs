//! The daemon's end of the conversation: frames in, frames out.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::Serialize;

use crate::runtime::wire::{self, HEADER_BYTES, Header, Kind, ResultMeta, RuntimeError, Specialised};

/// The daemon is trusted, but a length read out of step would be any number: larger than every payload it can be configured to send.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;
const MESSAGE_CHARS_MAX: usize = 8192;
const TYPE_CHARS_MAX: usize = 256;
const FRAME_CHARS_MAX: usize = 400;
const FRAMES_MAX: usize = 50;

pub(super) struct Frame {
    pub kind: Kind,
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

pub(super) struct Daemon {
    socket: UnixStream,
    /// What came and was not taken yet.
    buffer: Vec<u8>,
    /// Where it is read to first, used again by each read: to clear so much anew took as long as the rest of a read.
    chunk: Box<[u8]>,
}

impl Daemon {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket: socket.into(), buffer: Vec::new(), chunk: vec![0; READ_BYTES].into() }
    }

    /// Call when the socket is readable. `false`: the daemon has hung up.
    pub fn fill(&mut self) -> io::Result<bool> {
        let read = self.socket.read(&mut self.chunk)?;
        self.buffer.extend_from_slice(&self.chunk[..read]);
        Ok(read > 0)
    }

    /// The next frame that has come whole.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(head).map_err(|error| io::Error::other(format!("the daemon {error}")))?;
        let meta_end = HEADER_BYTES + usize::from(header.meta_bytes);
        let end = meta_end + header.body_bytes as usize;
        if end > FRAME_BYTES_MAX {
            return Err(io::Error::other("the daemon announced a frame that is too large"));
        }
        if self.buffer.len() < end {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let mut frame = std::mem::replace(&mut self.buffer, rest);
        let body = frame.split_off(meta_end);
        frame.drain(..HEADER_BYTES);
        Ok(Some(Frame { kind: header.kind, meta: frame, body }))
    }

    pub fn ready(&mut self) -> io::Result<()> {
        self.send(Kind::Ready, &serde_json::json!({}), &[])
    }

    pub fn specialised(&mut self, error: Option<RuntimeError>) -> io::Result<()> {
        self.send(Kind::Specialised, &Specialised { error: error.map(fitting) }, &[])
    }

    pub fn result(&mut self, mut meta: ResultMeta, body: &[u8]) -> io::Result<()> {
        meta.error = meta.error.map(fitting);
        self.send(Kind::Result, &meta, body)
    }

    fn send(&mut self, kind: Kind, meta: &impl Serialize, body: &[u8]) -> io::Result<()> {
        let mut frame = wire::head(kind, meta, body.len()).map_err(io::Error::other)?;
        frame.extend_from_slice(body);
        self.socket.write_all(&frame)
    }
}

impl AsFd for Daemon {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The error, cut so that a frame's meta part holds it.
pub(super) fn fitting(error: RuntimeError) -> RuntimeError {
    let cut = |text: String, chars: usize| match text.char_indices().nth(chars) {
        Some((at, _)) => text[..at].to_owned(),
        None => text,
    };
    let mut error = RuntimeError {
        error_type: cut(error.error_type, TYPE_CHARS_MAX),
        error_message: cut(error.error_message, MESSAGE_CHARS_MAX),
        stack_trace: error.stack_trace.into_iter().take(FRAMES_MAX).map(|line| cut(line, FRAME_CHARS_MAX)).collect(),
    };
    // Escapes can make six bytes of one: then the trace goes, and the message's end.
    let bytes = |error: &RuntimeError| serde_json::to_string(error).map_or(usize::MAX, |text| text.len());
    if bytes(&error) > usize::from(u16::MAX) - 1024 {
        error.stack_trace.clear();
        error.error_message = cut(error.error_message, MESSAGE_CHARS_MAX / 8);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_always_fits_its_frame() {
        for text in ["\u{1}", "ü", "x"] {
            let error = RuntimeError {
                error_type: text.repeat(1000),
                error_message: text.repeat(100_000),
                stack_trace: vec![text.repeat(1000); 1000],
            };
            assert!(wire::head(Kind::Specialised, &Specialised { error: Some(fitting(error)) }, 0).is_ok());
        }
    }
}
