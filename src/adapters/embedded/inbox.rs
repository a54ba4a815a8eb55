//! What waits for the writer: changes whose senders wait for an answer, and records that are written behind.
//!
//! Both are bounded here. Taking a batch is where group commit is decided: a waiting change goes at once, with all that wait
//! beside it; records alone linger a moment so that many share one commit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::domain::ids::InvocationId;
use crate::domain::invocation::StoredRecord;
use crate::ports::StoreError;

use super::errors::stopped;
use super::{locked, metrics::Metrics};

/// Changes waiting for an answer; beyond it the store says that it is full. Above what one node admits at once.
const CHANGES_MAX: usize = 16_384;
/// Of each kind in one transaction: enough to spread the cost of a commit, few enough that nobody waits long for it.
pub(super) const BATCH_MAX: usize = 512;
/// Records that wait to be written behind: half a second of the fastest node's.
const BEHIND_MAX: usize = 16_384;
/// What their results and output may hold together.
const BEHIND_BYTES_MAX: usize = 64 << 20;
/// How long a record may wait for others to share its commit.
const LINGER: Duration = Duration::from_millis(25);

/// One conditional change. It is decided inside the transaction, perhaps twice, and answered once, after the commit.
pub(super) trait Change: Send {
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A change made of two closures: what to do in the transaction, and what to do with its outcome.
pub(super) struct Decision<T, D, A> {
    pub decide: D,
    pub outcome: Option<T>,
    pub then: A,
}

impl<T, D, A> Change for Decision<T, D, A>
where
    T: Send,
    D: Fn(&Connection) -> Result<T, StoreError> + Send,
    A: FnOnce(Result<T, StoreError>) + Send,
{
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.outcome = Some((self.decide)(connection)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let this = *self;
        let outcome = this.outcome;
        (this.then)(committed.and_then(|()| outcome.ok_or_else(stopped)));
    }
}

/// What goes into one transaction, records first.
#[derive(Default)]
pub(super) struct Batch {
    pub records: Vec<Arc<StoredRecord>>,
    pub changes: Vec<Box<dyn Change>>,
}

pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    metrics: Metrics,
}

#[derive(Default)]
struct State {
    changes: VecDeque<Box<dyn Change>>,
    records: VecDeque<Arc<StoredRecord>>,
    /// Records queued above or in the batch that is being written.
    behind: HashMap<InvocationId, Arc<StoredRecord>>,
    behind_bytes: usize,
    /// When the oldest of `records` came.
    lingering_since: Option<Instant>,
    /// The writer sleeps until somebody wakes it.
    idle: bool,
    closed: bool,
}

impl Inbox {
    pub fn new(metrics: Metrics) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), metrics }
    }

    pub fn push(&self, change: Box<dyn Change>) -> Result<(), StoreError> {
        let mut state = locked(&self.state);
        if state.closed {
            return Err(stopped());
        }
        if state.changes.len() >= CHANGES_MAX {
            self.metrics.refused.inc();
            return Err(StoreError::Full(format!("{CHANGES_MAX} changes wait to be written")));
        }
        state.changes.push_back(change);
        self.wake(&state);
        Ok(())
    }

    pub fn push_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        let bytes = record.bytes_held();
        let mut state = locked(&self.state);
        if state.closed {
            return Err(stopped());
        }
        if state.behind.contains_key(&record.record.request_id) {
            return Ok(());
        }
        if state.behind.len() >= BEHIND_MAX || state.behind_bytes + bytes > BEHIND_BYTES_MAX {
            self.metrics.refused.inc();
            return Err(StoreError::Full("too many records wait to be written".to_owned()));
        }
        state.behind_bytes += bytes;
        state.behind.insert(record.record.request_id, record.clone());
        state.records.push_back(record);
        if state.lingering_since.is_none() {
            state.lingering_since = Some(Instant::now());
        }
        // A lingering writer wakes by itself.
        if state.idle || state.records.len() == BATCH_MAX {
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn wake(&self, state: &State) {
        if state.idle || state.lingering_since.is_some() {
            self.arrived.notify_one();
        }
    }

    /// A record that is accepted but perhaps not yet in the file.
    pub fn pending(&self, id: InvocationId) -> Option<Arc<StoredRecord>> {
        locked(&self.state).behind.get(&id).cloned()
    }

    /// Waits for work; `None` once closed and empty.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut state = locked(&self.state);
        loop {
            let ready = state.closed || !state.changes.is_empty() || state.records.len() >= BATCH_MAX;
            let lingered = state.lingering_since.map(|since| since.elapsed());
            if state.closed && state.changes.is_empty() && state.records.is_empty() {
                return None;
            }
            if ready || lingered.is_some_and(|lingered| lingered >= LINGER) {
                return Some(state.take());
            }
            state = match lingered {
                Some(lingered) => wait_for(&self.arrived, state, LINGER - lingered),
                None => {
                    state.idle = true;
                    let mut state = self.arrived.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                    state.idle = false;
                    state
                }
            };
        }
    }

    /// The batch is in the file, or given up.
    pub fn written(&self, records: &[Arc<StoredRecord>]) {
        if records.is_empty() {
            return;
        }
        let mut state = locked(&self.state);
        for record in records {
            state.behind.remove(&record.record.request_id);
            state.behind_bytes -= record.bytes_held();
        }
        self.metrics.behind.set(state.behind.len() as i64);
    }

    /// Nothing more is accepted; what is here is still written.
    pub fn close(&self) {
        locked(&self.state).closed = true;
        self.arrived.notify_all();
    }

    /// The writer is gone: whoever still waits is told.
    pub fn abandon(&self) {
        self.close();
        let changes = std::mem::take(&mut locked(&self.state).changes);
        for change in changes {
            change.answer(Err(stopped()));
        }
    }
}

impl State {
    fn take(&mut self) -> Batch {
        let changes = self.changes.len().min(BATCH_MAX);
        let records = self.records.len().min(BATCH_MAX);
        let batch = Batch {
            records: self.records.drain(..records).collect(),
            changes: self.changes.drain(..changes).collect(),
        };
        // Those left behind have waited long enough to go next.
        self.lingering_since = self.lingering_since.filter(|_| !self.records.is_empty());
        batch
    }
}

fn wait_for<'a>(
    arrived: &Condvar,
    state: std::sync::MutexGuard<'a, State>,
    timeout: Duration,
) -> std::sync::MutexGuard<'a, State> {
    arrived.wait_timeout(state, timeout).unwrap_or_else(std::sync::PoisonError::into_inner).0
}
