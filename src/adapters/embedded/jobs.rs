//! The queue's memory: which jobs are ready, delayed or leased, in what order. Pure: no I/O, no clock, no waiting.
//!
//! ```text
//!  add ─▶ Ready ──lease──▶ Leased ──settle──▶ Settling ──remove──▶ gone
//!          ▲  ▲              │  ▲                │  │
//!          │  └──── due ─────┘  └── unsettle ────┘  │      (due: its deadline passed)
//!          └─due─ Delayed ◀────────release──────────┘
//! ```
//!
//! Settling is the moment between the holder's last word and the commit of it: nobody else may have the job then.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::domain::ids::InvocationId;
use crate::domain::job::{Backlog, Job, Payload};
use crate::ports::clock::Clock;

/// Payloads of ready jobs that are kept in memory together; the others are read when they are leased.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// What a job takes beside its payload, about.
const JOB_BYTES: usize = 256;

/// All times are the clock's monotonic ones.
#[derive(Default)]
pub(super) struct Jobs {
    entries: HashMap<InvocationId, Entry>,
    /// Longest ready first, with since when.
    ready: VecDeque<(Duration, InvocationId)>,
    /// When delayed jobs become ready and leases end; the number keeps the order of equal times.
    timers: BTreeSet<(Duration, u64, InvocationId)>,
    leased: u64,
    delayed: u64,
    /// Names leases and orders timers; never the same twice.
    counter: u64,
    kept_bytes: usize,
}

struct Entry {
    attempts: u32,
    /// Kept from sending to leasing, where there is room.
    job: Option<Arc<Job>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Delayed,
    Leased { lease: u64, until: Duration, timer: u64 },
    Settling { lease: u64, until: Duration, timer: u64 },
}

/// A job handed out.
pub(super) struct Leased {
    pub id: InvocationId,
    pub lease: u64,
    pub attempt: u32,
    pub job: Option<Arc<Job>>,
}

impl Jobs {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn contains(&self, id: InvocationId) -> bool {
        self.entries.contains_key(&id)
    }

    /// A job that is durable now. One that is there already stays as it is.
    pub fn add(&mut self, id: InvocationId, job: Option<Arc<Job>>, attempts: u32, due: Duration, now: Duration) {
        if self.contains(id) {
            return;
        }
        let job = job.filter(|job| self.kept_bytes + weight(job) <= KEPT_BYTES_MAX);
        self.kept_bytes += job.as_ref().map_or(0, |job| weight(job));
        self.entries.insert(id, Entry { attempts, job, state: State::Ready });
        self.enqueue(id, due, now);
    }

    fn enqueue(&mut self, id: InvocationId, due: Duration, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if due <= now {
            entry.state = State::Ready;
            self.ready.push_back((now, id));
        } else {
            entry.state = State::Delayed;
            self.delayed += 1;
            self.counter += 1;
            self.timers.insert((due, self.counter, id));
        }
    }

    /// Makes ready what is due: delays that are over, leases that ended.
    pub fn promote(&mut self, now: Duration) {
        while let Some(&timer) = self.timers.first()
            && timer.0 <= now
        {
            self.timers.remove(&timer);
            let id = timer.2;
            if let Some(entry) = self.entries.get_mut(&id) {
                match entry.state {
                    State::Leased { .. } => self.leased -= 1,
                    State::Delayed => self.delayed -= 1,
                    State::Ready | State::Settling { .. } => continue,
                }
                entry.state = State::Ready;
                self.ready.push_back((timer.0, id));
            }
        }
    }

    /// Hands out up to `max` ready jobs, longest ready first, and counts the attempt.
    pub fn lease(&mut self, max: usize, now: Duration, valid_for: Duration) -> Vec<Leased> {
        self.promote(now);
        let mut out = Vec::with_capacity(max.min(self.ready.len()));
        while out.len() < max
            && let Some((_, id)) = self.ready.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            self.counter += 1;
            let (lease, until) = (self.counter, now.saturating_add(valid_for));
            entry.attempts = entry.attempts.saturating_add(1);
            entry.state = State::Leased { lease, until, timer: lease };
            let job = entry.job.take();
            self.kept_bytes -= job.as_ref().map_or(0, |job| weight(job));
            self.timers.insert((until, lease, id));
            self.leased += 1;
            out.push(Leased { id, lease, attempt: entry.attempts, job });
        }
        out
    }

    /// `false`: the lease is no longer held.
    pub fn extend(&mut self, id: InvocationId, lease: u64, now: Duration, valid_for: Duration) -> bool {
        self.promote(now);
        let Some(Entry { state, .. }) = self.entries.get_mut(&id) else { return false };
        let State::Leased { lease: held, until, timer } = *state else { return false };
        if held != lease {
            return false;
        }
        self.timers.remove(&(until, timer, id));
        self.counter += 1;
        let (until, timer) = (now.saturating_add(valid_for), self.counter);
        *state = State::Leased { lease, until, timer };
        self.timers.insert((until, timer, id));
        true
    }

    /// The holder's last word begins to be written: the attempts so far, or `None` if the lease is no longer held.
    pub fn settle(&mut self, id: InvocationId, lease: u64, now: Duration) -> Option<u32> {
        self.promote(now);
        let entry = self.entries.get_mut(&id)?;
        let State::Leased { lease: held, until, timer } = entry.state else { return None };
        if held != lease {
            return None;
        }
        self.timers.remove(&(until, timer, id));
        entry.state = State::Settling { lease, until, timer };
        Some(entry.attempts)
    }

    /// It could not be written: the lease goes on.
    pub fn unsettle(&mut self, id: InvocationId) {
        let Some(Entry { state, .. }) = self.entries.get_mut(&id) else { return };
        if let State::Settling { lease, until, timer } = *state {
            *state = State::Leased { lease, until, timer };
            self.timers.insert((until, timer, id));
        }
    }

    /// A settled job is done.
    pub fn remove(&mut self, id: InvocationId) {
        if let Some(entry) = self.entries.remove(&id) {
            debug_assert!(matches!(entry.state, State::Settling { .. }));
            self.leased -= 1;
        }
    }

    /// A settled job goes back, with that many attempts.
    pub fn release(&mut self, id: InvocationId, attempts: u32, due: Duration, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.attempts = attempts;
            self.leased -= 1;
            self.enqueue(id, due, now);
        }
    }

    /// A lease that never reached its holder: as if it had not been.
    pub fn take_back(&mut self, id: InvocationId, lease: u64, now: Duration) {
        if let Some(attempts) = self.settle(id, lease, now) {
            self.release(id, attempts.saturating_sub(1), now, now);
        }
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|timer| timer.0)
    }

    pub fn backlog(&mut self, now: Duration) -> Backlog {
        self.promote(now);
        let oldest = self.ready.front().map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since));
        Backlog {
            ready: self.ready.len() as u64,
            delayed: self.delayed,
            leased: self.leased,
            oldest_ms: oldest.as_millis() as u64,
            // Kept elsewhere.
            dead: 0,
        }
    }
}

fn weight(job: &Job) -> usize {
    JOB_BYTES
        + match &job.payload {
            Payload::Inline(bytes) => bytes.len(),
            Payload::Stored(_) => 0,
        }
}

/// All jobs of the file. No lease outlives the process that held it, so each is ready, or waits out its delay.
pub(super) fn load(connection: &Connection, clock: &dyn Clock) -> rusqlite::Result<Jobs> {
    let (wall, now) = (clock.now().as_millis(), clock.monotonic());
    let mut jobs = Jobs::default();
    let mut statement = connection.prepare("SELECT id, attempts, available_at FROM jobs ORDER BY available_at, seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = InvocationId(uuid::Uuid::from_bytes(row.get(0)?));
        let delay = row.get::<_, u64>(2)?.saturating_sub(wall);
        jobs.add(id, None, row.get(1)?, now.saturating_add(Duration::from_millis(delay)), now);
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
