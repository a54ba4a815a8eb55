//! The queue's memory: which jobs are ready, delayed or leased, in what order. Pure: no I/O, no clock, no waiting.
//!
//! ```text
//!  add ─▶ Ready ──lease──▶ Leased ──settle──▶ Settling ──remove──▶ gone
//!          ▲  ▲              │  ▲                │  │
//!          │  └──── due ─────┘  └── unsettle ────┘  │      (due: its deadline passed)
//!          └─due─ Delayed ◀────────release──────────┘
//! ```
//!
//! Owners take turns, so that nobody's jobs wait behind all of somebody else's; within one, the longest ready comes first.
//!
//! Settling is the moment between the holder's last word and the commit of it: nobody else may have the job then.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::domain::ids::{InvocationId, Owner};
use crate::domain::job::{Backlog, Job, Payload};
use crate::ports::clock::Clock;

/// Payloads of ready jobs that are kept in memory together; the others are read when they are leased.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// What a job takes beside its payload, about.
const JOB_BYTES: usize = 256;
/// Waits that are over are left among those that are not, up to as many as there are of the latter and this.
const OVER_MAX: usize = 64;

/// All times are the clock's monotonic ones.
#[derive(Default)]
pub(super) struct Jobs {
    entries: HashMap<InvocationId, Entry>,
    owners: HashMap<Owner, OfOwner>,
    /// Owners with ready jobs, the one whose turn it is first.
    turns: VecDeque<Owner>,
    ready: usize,
    /// Since when each ready job is ready, the longest first; and waits that are over, which its entry tells.
    waits: BinaryHeap<Reverse<(Duration, InvocationId)>>,
    /// When delayed jobs become ready and leases end; the number keeps the order of equal times.
    timers: BTreeSet<(Duration, u64, InvocationId)>,
    leased: u64,
    delayed: u64,
    /// Names leases and orders timers; never the same twice.
    counter: u64,
    kept_bytes: usize,
}

/// What is kept of an owner while it has ready or leased jobs.
#[derive(Default)]
struct OfOwner {
    /// Longest ready first.
    ready: VecDeque<InvocationId>,
    /// Leased or settling.
    leased: usize,
}

struct Entry {
    owner: Owner,
    attempts: u32,
    /// Kept from sending to leasing, where there is room.
    job: Option<Arc<Job>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready { since: Duration },
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
    pub fn add(
        &mut self,
        id: InvocationId,
        owner: &Owner,
        job: Option<Arc<Job>>,
        attempts: u32,
        due: Duration,
        now: Duration,
    ) {
        if self.contains(id) {
            return;
        }
        // One name for all of an owner's jobs, as long as it is known.
        let owner = self.owners.get_key_value(owner).map_or(owner, |(known, _)| known).clone();
        let job = job.filter(|job| self.kept_bytes + weight(job) <= KEPT_BYTES_MAX);
        self.kept_bytes += job.as_ref().map_or(0, |job| weight(job));
        self.entries.insert(id, Entry { owner, attempts, job, state: State::Delayed });
        self.enqueue(id, due, now);
    }

    fn enqueue(&mut self, id: InvocationId, due: Duration, now: Duration) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if due <= now {
            entry.state = State::Ready { since: now };
            let owner = entry.owner.clone();
            self.line_up(id, owner, now);
        } else {
            entry.state = State::Delayed;
            self.delayed += 1;
            self.counter += 1;
            self.timers.insert((due, self.counter, id));
        }
    }

    fn line_up(&mut self, id: InvocationId, owner: Owner, since: Duration) {
        let of_owner = self.owners.entry(owner.clone()).or_default();
        if of_owner.ready.is_empty() {
            self.turns.push_back(owner);
        }
        of_owner.ready.push_back(id);
        self.ready += 1;
        if self.waits.len() > 2 * self.ready + OVER_MAX {
            self.waits.retain(|Reverse((since, id))| is_ready(&self.entries, *id, *since));
        }
        self.waits.push(Reverse((since, id)));
    }

    /// One of an owner's jobs is leased no longer.
    fn unlease(&mut self, owner: &Owner) {
        self.leased -= 1;
        if let Some(of_owner) = self.owners.get_mut(owner) {
            of_owner.leased -= 1;
            if of_owner.leased == 0 && of_owner.ready.is_empty() {
                self.owners.remove(owner);
            }
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
                let was = std::mem::replace(&mut entry.state, State::Ready { since: timer.0 });
                let owner = entry.owner.clone();
                match was {
                    State::Leased { .. } => self.unlease(&owner),
                    State::Delayed => self.delayed -= 1,
                    State::Ready { .. } | State::Settling { .. } => {
                        entry.state = was;
                        continue;
                    }
                }
                self.line_up(id, owner, timer.0);
            }
        }
    }

    /// Hands out up to `max` ready jobs, of one owner after the other, and counts the attempt. Jobs of an owner that has
    /// `per_owner_max` of them leased stay.
    pub fn lease(&mut self, max: usize, per_owner_max: usize, now: Duration, valid_for: Duration) -> Vec<Leased> {
        self.promote(now);
        let mut out = Vec::with_capacity(max.min(self.ready));
        let mut at_most = Vec::new();
        while out.len() < max
            && let Some(owner) = self.turns.pop_front()
        {
            let Some(of_owner) = self.owners.get_mut(&owner) else { continue };
            if of_owner.leased >= per_owner_max {
                at_most.push(owner);
                continue;
            }
            let Some(id) = of_owner.ready.pop_front() else { continue };
            self.ready -= 1;
            of_owner.leased += 1;
            if !of_owner.ready.is_empty() {
                self.turns.push_back(owner);
            }
            out.extend(self.hand_out(id, now.saturating_add(valid_for)));
        }
        // They keep their turns for when one of theirs is over.
        at_most.into_iter().rev().for_each(|owner| self.turns.push_front(owner));
        out
    }

    fn hand_out(&mut self, id: InvocationId, until: Duration) -> Option<Leased> {
        self.leased += 1;
        self.counter += 1;
        let lease = self.counter;
        let entry = self.entries.get_mut(&id)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.state = State::Leased { lease, until, timer: lease };
        let job = entry.job.take();
        self.kept_bytes -= job.as_ref().map_or(0, |job| weight(job));
        self.timers.insert((until, lease, id));
        Some(Leased { id, lease, attempt: entry.attempts, job })
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
            self.unlease(&entry.owner);
        }
    }

    /// A settled job goes back, with that many attempts.
    pub fn release(&mut self, id: InvocationId, attempts: u32, due: Duration, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.attempts = attempts;
            let owner = entry.owner.clone();
            self.unlease(&owner);
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
        self.ready > 0
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|timer| timer.0)
    }

    /// Since when the job that waits longest does. Each wait that is over is met once.
    fn ready_since(&mut self) -> Option<Duration> {
        while let Some(Reverse((since, id))) = self.waits.peek() {
            if is_ready(&self.entries, *id, *since) {
                return Some(*since);
            }
            self.waits.pop();
        }
        None
    }

    pub fn backlog(&mut self, now: Duration) -> Backlog {
        self.promote(now);
        Backlog {
            ready: self.ready as u64,
            delayed: self.delayed,
            leased: self.leased,
            oldest_ms: self.ready_since().map_or(0, |since| now.saturating_sub(since).as_millis() as u64),
            // Kept elsewhere.
            dead: 0,
        }
    }
}

/// Whether that wait goes on.
fn is_ready(entries: &HashMap<InvocationId, Entry>, id: InvocationId, wait: Duration) -> bool {
    matches!(entries.get(&id), Some(Entry { state: State::Ready { since }, .. }) if *since == wait)
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
    let mut statement =
        connection.prepare("SELECT id, attempts, available_at, owner FROM jobs ORDER BY available_at, seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = InvocationId(uuid::Uuid::from_bytes(row.get(0)?));
        let delay = row.get::<_, u64>(2)?.saturating_sub(wall);
        let owner = Owner(row.get(3)?);
        jobs.add(id, &owner, None, row.get(1)?, now.saturating_add(Duration::from_millis(delay)), now);
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests;
