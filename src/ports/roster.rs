//! The roster: which workers there are, by their heartbeats.

use std::time::Duration;

use async_trait::async_trait;

use super::Unavailable;
use super::executor::{WorkerState, WorkerView};
use crate::domain::ids::WorkerId;
use crate::domain::time::Timestamp;

/// A worker unheard for so long is dead …
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// … and after this forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Workers known at once: another one is refused.
pub const WORKERS_MAX: usize = 16_384;

#[async_trait]
pub trait Roster: Send + Sync + 'static {
    /// The worker lives and is like this.
    async fn beat(&self, view: &WorkerView) -> Result<(), Unavailable>;

    /// The worker has ended in order and is not listed any more.
    async fn leave(&self, worker: WorkerId) -> Result<(), Unavailable>;

    /// Everybody heard of, by id; `last_seen` by one clock for all of them.
    async fn workers(&self) -> Result<Vec<WorkerView>, Unavailable>;
}

/// A worker as it is listed at `now`, by the clock of its `last_seen`; `None` when it is forgotten.
pub fn as_seen(view: WorkerView, now: Timestamp) -> Option<WorkerView> {
    let silent_for = now.since(view.last_seen);
    let state = if silent_for >= DEAD_AFTER { WorkerState::Dead } else { view.state };
    (silent_for < FORGOTTEN_AFTER).then_some(WorkerView { state, ..view })
}

/// What a worker beyond [`WORKERS_MAX`] is told.
pub fn full() -> Unavailable {
    Unavailable(format!("the roster has {WORKERS_MAX} workers, and no room for another"))
}
