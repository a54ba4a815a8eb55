//! The daemon's end of a sandbox: its socket and its two outputs, driven together so that neither side can block the other.
//!
//! One exchange sends at most one frame and waits for at most one. Lengths are checked before anything is allocated; what the sandbox
//! prints meanwhile is captured; what it printed before its answer is in the pipes by then and is read before the exchange ends.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use tokio::net::unix::pipe;

use super::frames::{Frames, Taken};
use super::output::{Capture, FullLog};
use super::socket::{Room, Socket};
use super::sys;
use crate::domain::outcome::Output;
use crate::ports::sandbox::{LogSink, Stream};
use crate::runtime::wire::Kind;

/// How much is read from a pipe at once.
const PIPE_READ_BYTES: usize = 64 * 1024;
/// A pipe holds this much; after an answer no more than this can be from before it.
const PIPE_BYTES: usize = 1024 * 1024;

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The one kind of frame that may come.
    pub due: Kind,
    pub body_bytes: u64,
    pub output_bytes: u64,
    pub log_bytes: u64,
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Answer {
    /// The frame that was due.
    Frame {
        meta: Bytes,
        body: Bytes,
    },
    /// A body of this size was announced; it was not read.
    TooLarge(u64),
    /// The sandbox closed its socket or is gone.
    Closed,
    Violated(String),
    /// It was found unfit before anything was sent: it had spoken unasked, or closed its socket.
    Spoiled(&'static str),
}

/// An answer and what was printed until then.
pub struct Exchange {
    pub answer: Answer,
    pub stdout: Output,
    pub stderr: Output,
    pub full_log: Option<Bytes>,
}

pub struct Channel {
    socket: Socket,
    stdout: Pipe,
    stderr: Pipe,
    frames: Frames,
}

/// One output of the sandbox.
struct Pipe {
    receiver: pipe::Receiver,
    open: bool,
}

impl Pipe {
    async fn readable(&self) {
        if self.open {
            // An error shows at the read that follows.
            let _ = self.receiver.readable().await;
        } else {
            std::future::pending().await
        }
    }

    /// What is there now, straight from the kernel: readiness as the reactor knows it may lag behind the socket's.
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        if !self.open {
            return 0;
        }
        match nix::unistd::read(self.receiver.as_fd(), buffer) {
            Ok(0) => {
                self.open = false;
                0
            }
            Ok(length) => length,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {
                // Tells the reactor to wait for the next event.
                let _ = self.receiver.try_read(buffer);
                0
            }
            Err(_) => {
                self.open = false;
                0
            }
        }
    }
}

/// The outputs of one exchange.
struct Outputs<'a> {
    stdout: Capture,
    stderr: Capture,
    full: FullLog,
    bounds: Bounds,
    sink: Option<&'a dyn LogSink>,
}

impl Outputs<'_> {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.push(bytes, self.sink),
            Stream::Stderr => self.stderr.push(bytes, self.sink),
        }
        self.full.push(bytes, self.bounds.log_bytes);
    }
}

impl Channel {
    /// Takes ownership of nonblocking descriptors.
    pub fn new(socket: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let pipe = |fd| Ok::<_, io::Error>(Pipe { receiver: pipe::Receiver::from_owned_fd(fd)?, open: true });
        Ok(Self {
            socket: Socket::watch(socket)?,
            stdout: pipe(stdout)?,
            stderr: pipe(stderr)?,
            frames: Frames::default(),
        })
    }

    /// Sends `head` and `body` as one frame (nothing if `head` is empty) and waits for one frame, or until `gone` is over.
    pub async fn exchange(
        &mut self,
        head: &[u8],
        body: &[u8],
        bounds: Bounds,
        sink: Option<&dyn LogSink>,
        gone: impl Future<Output = ()>,
    ) -> Exchange {
        let mut outputs = Outputs {
            stdout: Capture::new(Stream::Stdout, bounds.output_bytes),
            stderr: Capture::new(Stream::Stderr, bounds.output_bytes),
            full: FullLog::default(),
            bounds,
            sink,
        };
        let answer = self.drive(head, body, &mut outputs, gone).await;
        self.drain(&mut outputs);
        let cut = outputs.stdout.is_truncated() || outputs.stderr.is_truncated();
        Exchange {
            answer,
            full_log: cut.then(|| outputs.full.into_bytes()),
            stdout: outputs.stdout.finish(sink),
            stderr: outputs.stderr.finish(sink),
        }
    }

    async fn drive(
        &mut self,
        head: &[u8],
        body: &[u8],
        outputs: &mut Outputs<'_>,
        gone: impl Future<Output = ()>,
    ) -> Answer {
        let total = head.len() + body.len();
        let mut sent = 0;
        let mut gone = std::pin::pin!(gone);
        let mut is_gone = false;
        let mut buffer: Vec<u8> = Vec::new();
        if total > 0 {
            if let Some(why) = self.unfit() {
                return Answer::Spoiled(why);
            }
            // Nearly always the whole frame goes in one write.
            match write_some(self.socket.as_fd(), head, body, sent) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Answer::Spoiled("had closed its socket"),
            }
        }
        let room = match (sent < total).then(|| self.socket.room()).transpose() {
            Ok(room) => room,
            Err(error) => return Answer::Violated(format!("can't be written to: {error}")),
        };
        loop {
            match self.frames.take(outputs.bounds.due, outputs.bounds.body_bytes) {
                Ok(Taken::Partial) => {}
                Ok(_) if sent < total => return Answer::Violated("answered before it was asked".to_owned()),
                Ok(Taken::Frame { meta, body }) => return Answer::Frame { meta, body },
                Ok(Taken::TooLarge(bytes)) => return Answer::TooLarge(bytes),
                Err(fault) => return Answer::Violated(fault.to_string()),
            }
            if is_gone {
                return Answer::Closed;
            }
            tokio::select! {
                biased;
                ready = self.socket.readable() => {
                    if ready.is_err() {
                        return Answer::Closed;
                    }
                    match self.read() {
                        Ok(0) => is_gone = true,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => is_gone = true,
                    }
                }
                written = write_on(room.as_ref(), head, body, sent), if sent < total => {
                    match written {
                        Ok(written) => sent += written,
                        Err(_) => is_gone = true,
                    }
                }
                () = self.stdout.readable() => {
                    buffer.resize(PIPE_READ_BYTES, 0);
                    let length = self.stdout.read(&mut buffer);
                    outputs.push(Stream::Stdout, &buffer[..length]);
                }
                () = self.stderr.readable() => {
                    buffer.resize(PIPE_READ_BYTES, 0);
                    let length = self.stderr.read(&mut buffer);
                    outputs.push(Stream::Stderr, &buffer[..length]);
                }
                () = &mut gone => {
                    // An answer sent just before the end counts. Nobody is left to send more than the socket holds.
                    while matches!(self.read(), Ok(1..)) {}
                    is_gone = true;
                }
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let space = self.frames.space();
        self.socket.try_read(|fd| sys::read_some(fd, space))
    }

    /// Why this sandbox can't be asked: it has sent what nobody asked for, or hung up.
    ///
    /// One system call at most, and none beyond those of the call before: the reactor still takes a socket for readable whose last
    /// bytes were read, until a read says otherwise.
    fn unfit(&mut self) -> Option<&'static str> {
        if !self.frames.is_empty() {
            return Some("had spoken unasked");
        }
        match self.read() {
            Ok(0) => Some("had closed its socket"),
            Ok(_) => Some("had spoken unasked"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some("had closed its socket"),
        }
    }

    /// Reads what both pipes hold now.
    fn drain(&mut self, outputs: &mut Outputs<'_>) {
        let mut small = [0; 4096];
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pipe = if stream == Stream::Stdout { &mut self.stdout } else { &mut self.stderr };
            let mut drained = 0;
            // A sandbox that goes on printing must not hold the answer up for ever.
            while drained < PIPE_BYTES {
                let length = pipe.read(&mut small);
                if length == 0 {
                    break;
                }
                drained += length;
                outputs.push(stream, &small[..length]);
            }
        }
    }
}

/// Writes what is left of the frame as far as it goes.
fn write_some(socket: BorrowedFd<'_>, head: &[u8], body: &[u8], sent: usize) -> io::Result<usize> {
    let head_left = &head[sent.min(head.len())..];
    let body_left = &body[sent.saturating_sub(head.len())..];
    let parts = [io::IoSlice::new(head_left), io::IoSlice::new(body_left)];
    nix::sys::uio::writev(socket, &parts).map_err(io::Error::from)
}

async fn write_on(room: Option<&Room>, head: &[u8], body: &[u8], sent: usize) -> io::Result<usize> {
    match room {
        Some(room) => room.write(|socket| write_some(socket, head, body, sent)).await,
        None => std::future::pending().await,
    }
}
