//! Records of synchronous calls, written soon and without anybody waiting: bounded, tried again for a while, flushed at the end.
//!
//! Each is a conditional write of its own: DynamoDB's batches know no conditions, and an outcome must never be written over another.
//! What is gained by going behind is that some tens are under way at once and no caller waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::domain::ids::InvocationId;
use crate::domain::invocation::StoredRecord;
use crate::ports::StoreError;

use super::errors::stopped;
use super::metrics::Metrics;

/// Records that wait: a few seconds of the fastest node's.
const RECORDS_MAX: usize = 16_384;
/// What their results and output may hold together.
const BYTES_MAX: usize = 64 << 20;
/// Written at once: at some 5 ms each, 10 000 a second.
const WRITERS: usize = 48;
/// A record that could not be written for so long is lost: the store is away, and others wait behind it.
const TRIED_FOR: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// At the end of the process, for what still waits.
const FLUSH_MAX: Duration = Duration::from_secs(10);

/// Where records go.
#[async_trait]
pub(super) trait Sink: Send + Sync + 'static {
    /// `false`: what is stored stands.
    async fn finish(&self, record: &StoredRecord) -> Result<bool, StoreError>;
}

pub(super) struct Behind {
    state: Mutex<State>,
    /// One more waits.
    arrived: Arc<Notify>,
    /// One less waits.
    written: Notify,
    metrics: Metrics,
    writers: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<StoredRecord>>,
    /// Those in the queue and those under way.
    pending: HashMap<InvocationId, Arc<StoredRecord>>,
    bytes: usize,
    closed: bool,
}

impl Behind {
    pub fn start(sink: Arc<dyn Sink>, metrics: Metrics) -> Arc<Self> {
        let behind = Arc::new(Self {
            state: Mutex::default(),
            arrived: Arc::new(Notify::new()),
            written: Notify::new(),
            metrics,
            writers: Mutex::new(JoinSet::new()),
        });
        let mut writers = locked(&behind.writers);
        for _ in 0..WRITERS {
            // Weak while it waits: who drops the store ends its writers.
            let (behind, arrived, sink) = (Arc::downgrade(&behind), behind.arrived.clone(), sink.clone());
            writers.spawn(async move {
                loop {
                    while let Some((behind, record)) = next(&behind) {
                        behind.write(sink.as_ref(), &record).await;
                    }
                    arrived.notified().await;
                }
            });
        }
        drop(writers);
        behind
    }

    pub fn push(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        let bytes = record.bytes_held();
        let mut state = locked(&self.state);
        if state.closed {
            return Err(stopped());
        }
        if state.pending.contains_key(&record.record.request_id) {
            return Ok(());
        }
        if state.pending.len() >= RECORDS_MAX || state.bytes + bytes > BYTES_MAX {
            self.metrics.refused.inc();
            return Err(StoreError::Full("too many records wait to be written".to_owned()));
        }
        state.bytes += bytes;
        state.pending.insert(record.record.request_id, record.clone());
        state.queue.push_back(record);
        self.metrics.behind.set(state.pending.len() as i64);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// A record that is accepted but perhaps not yet in the table.
    pub fn pending(&self, id: InvocationId) -> Option<Arc<StoredRecord>> {
        locked(&self.state).pending.get(&id).cloned()
    }

    /// Returns when no record of this id waits: what comes after is written after it.
    pub async fn settled(&self, id: InvocationId) -> Result<(), StoreError> {
        if locked(&self.state).closed {
            return Err(stopped());
        }
        self.until(|state| !state.pending.contains_key(&id)).await;
        Ok(())
    }

    /// Refuses what comes and writes what waits, for a while.
    pub async fn close(&self) {
        locked(&self.state).closed = true;
        let written = self.until(|state| state.pending.is_empty());
        if tokio::time::timeout(FLUSH_MAX, written).await.is_err() {
            let left = locked(&self.state).pending.len();
            self.metrics.lost.inc_by(left as u64);
            tracing::error!(records = left, "records were not written before the end");
        }
        locked(&self.writers).abort_all();
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            if is_so(&locked(&self.state)) {
                return;
            }
            written.await;
        }
    }

    async fn write(&self, sink: &dyn Sink, record: &Arc<StoredRecord>) {
        let began = Instant::now();
        let id = record.record.request_id;
        loop {
            match sink.finish(record).await {
                Ok(_) => break,
                Err(error) if error.is_retryable() && began.elapsed() < TRIED_FOR => {
                    tracing::debug!(invocation_id = %id, %error, "a record could not be written yet");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    self.metrics.lost.inc();
                    tracing::warn!(invocation_id = %id, %error, "a record could not be written behind and is lost");
                    break;
                }
            }
        }
        let mut state = locked(&self.state);
        state.bytes -= record.bytes_held();
        state.pending.remove(&id);
        self.metrics.behind.set(state.pending.len() as i64);
        drop(state);
        self.written.notify_waiters();
    }
}

fn next(behind: &Weak<Behind>) -> Option<(Arc<Behind>, Arc<StoredRecord>)> {
    let behind = behind.upgrade()?;
    let record = locked(&behind.state).queue.pop_front()?;
    Some((behind, record))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
