//! The roster: which workers there are, by their heartbeats.

use async_trait::async_trait;

use super::Unavailable;
use super::executor::WorkerView;
use crate::domain::ids::WorkerId;

#[async_trait]
pub trait Roster: Send + Sync + 'static {
    /// The worker lives and is like this. It is heard until it has been silent for a while, and listed as dead for a while longer.
    async fn beat(&self, view: &WorkerView) -> Result<(), Unavailable>;

    /// The worker has ended in order and is not listed any more.
    async fn leave(&self, worker: WorkerId) -> Result<(), Unavailable>;

    /// Everybody heard of, by id; `last_seen` by one clock for all of them.
    async fn workers(&self) -> Result<Vec<WorkerView>, Unavailable>;
}
