//! The invocation records: durable where it was promised, fenced by attempt, and gone when their time is over.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::ids::{Digest, FunctionId, InvocationId, Owner, WorkerId};
use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::Status;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;

use super::StoreError;

/// One `Idempotency-Key` of one owner for one function, and what the request asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub owner: Owner,
    pub function: FunctionId,
    pub key: String,
    /// Over function and payload: the same key with another request is an error, not the earlier answer.
    pub request: Digest,
}

/// The answer to [`InvocationStore::create`].
#[derive(Clone, Debug)]
pub enum Created {
    New,
    /// The key was used before, for the same request.
    Existing(InvocationId),
    /// The key was used before, for a different request.
    KeyReused,
}

/// The answer to [`InvocationStore::get`].
#[derive(Clone, Debug)]
pub enum Lookup {
    Found(Arc<StoredRecord>),
    /// It was there; its retention is over. Whose it was: for others there never was one.
    Expired {
        owner: Owner,
        function: FunctionId,
    },
    Unknown,
}

/// Which records a listing wants; every field narrows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordQuery {
    /// This one alone: its log outlives its result.
    pub invocation: Option<InvocationId>,
    pub owner: Option<Owner>,
    pub function: Option<FunctionId>,
    pub status: Option<Status>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created at or before.
    pub until: Option<Timestamp>,
    pub cursor: Option<String>,
    pub limit: usize,
}

#[async_trait]
pub trait InvocationStore: Send + Sync + 'static {
    /// Stores a QUEUED record, durable on return.
    async fn create(&self, record: StoredRecord, idempotency: Option<Idempotency>) -> Result<Created, StoreError>;

    /// Whether a job that is sent after [`InvocationStore::create`] was begun can't be delivered before that has ended, as where one
    /// writer makes both: then nobody needs to wait in between, and both are in one commit.
    fn precedes_queue(&self) -> bool {
        false
    }

    /// Marks `attempt` as running. `false`: refused, because the record is final, unknown, or a later attempt has begun.
    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError>;

    /// Stores a final record, durable on return, on condition that none is stored and no later attempt has begun.
    /// `false`: refused, and what is stored stands. A record never created is stored as it is.
    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError>;

    /// Stores a final record of a synchronous call soon, without waiting; a crash within the moment loses it.
    fn finish_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError>;

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError>;

    /// Newest first, up to `limit`; a page may be shorter, even empty, though more follow: the cursor tells. Results that are over
    /// are left out. Records that are still to be written behind may be missing, and in a shared store those of the last moment.
    async fn list(&self, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError>;

    /// Open records of synchronous calls with an `Idempotency-Key`, everybody's, created at `until` or before; `max` at most, the newest
    /// first. Without a key a call has no record before its end, or its job sees to that. A store of one node, which ends what was left open when it is opened, has none.
    async fn waited_for(&self, until: Timestamp, max: usize) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
        let _ = (until, max);
        Ok(Vec::new())
    }
}
