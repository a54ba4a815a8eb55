//! The load generator: one thread, one epoll set, prepared bytes, no allocation per call.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;

use super::answer::{self, Verdict};

const EVENTS_AT_ONCE: usize = 512;
const ANSWER_BYTES: usize = 16 * 1024;
/// How long answers may still come after the last call was sent; those that don't are failures.
const TAIL_LIMIT: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(50);

/// What a case came to.
pub struct Tally {
    /// Nanoseconds, of completed calls in the measured time.
    pub latency: Histogram<u64>,
    /// The same of refusals, from when they were sent.
    pub refusals: Histogram<u64>,
    pub completed: u64,
    pub warm: u64,
    pub refused: u64,
    pub failed: u64,
    pub measured: Duration,
    /// From the end of the load to the last answer.
    pub tail: Duration,
    /// Ids of accepted jobs, where the load was asynchronous.
    pub accepted: Vec<String>,
}

impl Tally {
    pub fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1000, 120_000_000_000, 3).expect("constant bounds");
        let (completed, warm, refused, failed) = (0, 0, 0, 0);
        let (latency, refusals, accepted) = (histogram(), histogram(), Vec::new());
        let (measured, tail) = (Duration::ZERO, Duration::ZERO);
        Self { latency, refusals, completed, warm, refused, failed, measured, tail, accepted }
    }

    pub fn per_second(&self) -> f64 {
        self.completed as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Done { warm } => {
                self.completed += 1;
                self.warm += u64::from(warm);
            }
            Verdict::Refused => self.refused += 1,
            Verdict::Failed => self.failed += 1,
        }
    }

    /// Milliseconds of completed calls; none where none was.
    pub fn ms(&self, quantile: f64) -> Option<f64> {
        let measured = !self.latency.is_empty();
        measured.then(|| self.latency.value_at_quantile(quantile) as f64 / 1e6)
    }

    /// One call, measured by itself.
    pub fn record(&mut self, verdict: Verdict, took: Duration) {
        self.count(verdict);
        if matches!(verdict, Verdict::Done { .. }) {
            self.latency.saturating_record(took.as_nanos() as u64);
        }
    }
}

/// Which calls are sent when.
pub enum Loop {
    /// The next when the last is answered.
    Closed,
    /// So many a second, whatever the answers do.
    Open { rate: u64 },
}

pub struct Load<'a> {
    pub address: SocketAddr,
    /// Sent in turn.
    pub requests: &'a [Vec<u8>],
    pub connections: usize,
    pub schedule: Loop,
    pub warm_up: Duration,
    pub duration: Duration,
    pub keep_ids: bool,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    call: Option<Call>,
}

/// One that is under way.
#[derive(Clone, Copy)]
struct Call {
    due: Instant,
    sent: Instant,
}

impl Connection {
    fn open(address: SocketAddr, epoll: &Epoll, index: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        Ok(Self { stream, buffer: vec![0; ANSWER_BYTES], filled: 0, call: None })
    }
}

struct Run<'a> {
    load: &'a Load<'a>,
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Connections without a call, longest idle first, so that all of them get their turn.
    free: VecDeque<usize>,
    from: Instant,
    until: Instant,
    begun: Instant,
    /// Calls sent so far.
    sent: u64,
    tally: Tally,
}

impl Load<'_> {
    pub fn run(&self) -> io::Result<Tally> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(self.connections);
        for index in 0..self.connections {
            connections.push(Connection::open(self.address, &epoll, index)?);
        }
        let begun = Instant::now();
        let from = begun + self.warm_up;
        let free = (0..self.connections).collect();
        let tally = Tally { measured: self.duration, ..Tally::new() };
        let until = from + self.duration;
        Run { load: self, epoll, connections, free, from, until, begun, sent: 0, tally }.drive()
    }
}

impl Run<'_> {
    fn drive(mut self) -> io::Result<Tally> {
        let mut events = [EpollEvent::empty(); EVENTS_AT_ONCE];
        loop {
            let now = Instant::now();
            if now < self.until {
                self.send_due(now)?;
            } else if self.free.len() == self.connections.len() || now > self.until + TAIL_LIMIT {
                break;
            }
            self.wait(now)?;
            let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            for event in &events[..ready] {
                self.read(event.data() as usize)?;
            }
        }
        let unanswered = self.connections.iter().filter(|connection| connection.call.is_some()).count();
        self.tally.tail = self.until.elapsed();
        self.tally.failed += unanswered as u64 + self.overdue();
        Ok(self.tally)
    }

    /// When the call after those already sent is due.
    fn next_due(&self, now: Instant) -> Instant {
        match self.load.schedule {
            Loop::Closed => now,
            Loop::Open { rate } => self.begun + Duration::from_nanos(self.sent * 1_000_000_000 / rate),
        }
    }

    /// Calls of an open loop that were due and never sent, because every connection was taken.
    fn overdue(&self) -> u64 {
        match self.load.schedule {
            Loop::Closed => 0,
            Loop::Open { rate } => {
                let due = (self.until - self.begun).as_nanos() as u64 * rate / 1_000_000_000;
                due.saturating_sub(self.sent)
            }
        }
    }

    fn send_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some(index) = self.free.front().copied() {
            let due = self.next_due(now);
            if due > now {
                return Ok(());
            }
            self.free.pop_front();
            let connection = &mut self.connections[index];
            let sent = Instant::now();
            let due = if matches!(self.load.schedule, Loop::Closed) { sent } else { due };
            connection.call = Some(Call { due, sent });
            let request = &self.load.requests[self.sent as usize % self.load.requests.len()];
            self.sent += 1;
            if connection.stream.write_all(request).is_err() {
                self.closed(index)?;
            }
        }
        Ok(())
    }

    /// Until an answer comes or a call is due.
    fn wait(&self, now: Instant) -> io::Result<()> {
        let due = if self.free.is_empty() || now >= self.until {
            TICK
        } else {
            self.next_due(now).saturating_duration_since(now)
        };
        let timeout = TimeSpec::from_duration(due.min(TICK));
        let mut set = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut set, Some(timeout), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The other side closed the connection: what was under way on it failed, and another one takes its place.
    fn closed(&mut self, index: usize) -> io::Result<()> {
        let fresh = Connection::open(self.load.address, &self.epoll, index)?;
        if std::mem::replace(&mut self.connections[index], fresh).call.is_some() {
            self.tally.count(Verdict::Failed);
            self.free.push_back(index);
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match connection.stream.read(&mut connection.buffer[connection.filled..]) {
            Ok(0) => return self.closed(index),
            Ok(read) => connection.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return self.closed(index),
        }
        let bytes = &connection.buffer[..connection.filled];
        let Some(answer) = answer::read(bytes) else { return Ok(()) };
        let Some(call) = connection.call.take() else { return self.closed(index) };
        if self.load.keep_ids && matches!(answer.verdict, Verdict::Done { .. }) {
            self.tally.accepted.extend(job_id(&bytes[answer.body_from..answer.end]));
        }
        connection.filled = 0;
        self.answered(answer.verdict, call);
        self.free.push_back(index);
        Ok(())
    }

    /// Throughput is of what came in the measured time; an open loop's latency of what was due in it, however late it came.
    fn answered(&mut self, verdict: Verdict, call: Call) {
        let now = Instant::now();
        let measured = |at: Instant| at >= self.from && at < self.until;
        if measured(now) || verdict == Verdict::Failed {
            self.tally.count(verdict);
        }
        let latency_of = match self.load.schedule {
            Loop::Closed => now,
            Loop::Open { .. } => call.due,
        };
        if !measured(latency_of) {
            return;
        }
        match verdict {
            Verdict::Done { .. } => self.tally.latency.saturating_record((now - call.due).as_nanos() as u64),
            Verdict::Refused => self.tally.refusals.saturating_record((now - call.sent).as_nanos() as u64),
            Verdict::Failed => {}
        }
    }
}

fn job_id(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let at = text.find(r#""jobId":""#)? + 9;
    text.get(at..at + 36).map(str::to_owned)
}
