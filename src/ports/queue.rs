//! The job queue: at-least-once delivery with leases, and the dead letters.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::{InvocationId, Owner};
use crate::domain::job::{Backlog, DeadLetter, Job, Lease, LeaseToken};
use crate::domain::page::Page;

use super::StoreError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The lease ran out or its job is done: whoever held it must not write an outcome.
    #[error("the lease is no longer held")]
    LeaseLost,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Jobs between their acceptance and their end.
///
/// A job that was sent is delivered until it is acknowledged or buried, whatever dies meanwhile. While one lease of a job is
/// valid no other is handed out.
#[async_trait]
pub trait JobQueue: Send + Sync + 'static {
    /// Durable when it returns. Sending an invocation that is already queued changes nothing.
    async fn send(&self, job: Job, delay: Duration) -> Result<(), StoreError>;

    /// Up to `max` jobs; waits up to `wait` for the first. An empty answer is no error.
    ///
    /// Owners take turns; within one the oldest ready comes first. Of an owner that has `per_owner_max` of them leased by
    /// this node none is handed out, and nobody else's waits behind those.
    async fn receive(&self, max: usize, per_owner_max: usize, wait: Duration) -> Result<Vec<Lease>, StoreError>;

    /// The lease lasts `valid_for` from now.
    async fn extend(&self, token: &LeaseToken, valid_for: Duration) -> Result<(), QueueError>;

    /// The job is done and gone.
    async fn acknowledge(&self, token: &LeaseToken) -> Result<(), QueueError>;

    /// The job may be leased again after `delay`. `counted` says whether this lease was an attempt (a failure) or not (a drain).
    async fn give_back(&self, token: &LeaseToken, delay: Duration, counted: bool) -> Result<(), QueueError>;

    /// The job becomes a dead letter, in one step.
    async fn bury(&self, token: &LeaseToken, reason: &str) -> Result<(), QueueError>;

    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Leases of jobs that the queue put aside by itself, because nobody who had them came to an end with them: to be buried, not
    /// to be run. Answers at once. A queue that puts none aside has none.
    async fn given_up(&self, max: usize) -> Result<Vec<Lease>, StoreError> {
        let _ = max;
        Ok(Vec::new())
    }
}

/// Jobs that were given up, kept until they are replayed or age out.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Newest first; `owner` of `None` means everybody's.
    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError>;

    async fn get(&self, id: InvocationId) -> Result<Option<DeadLetter>, StoreError>;

    /// Takes the letter away; `false` if it is not there (any more), so that two replays make one job.
    async fn remove(&self, id: InvocationId) -> Result<bool, StoreError>;
}
