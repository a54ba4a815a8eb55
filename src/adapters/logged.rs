//! A store of records that also tells each final one to a log that people search. Telling waits for nothing and fails nothing.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::StoredRecord;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};
use crate::ports::record_log::RecordLog;

pub struct Logged {
    store: Arc<dyn InvocationStore>,
    log: Arc<dyn RecordLog>,
}

impl Logged {
    pub fn new(store: Arc<dyn InvocationStore>, log: Arc<dyn RecordLog>) -> Self {
        Self { store, log }
    }
}

#[async_trait]
impl InvocationStore for Logged {
    async fn create(&self, record: StoredRecord, idempotency: Option<Idempotency>) -> Result<Created, StoreError> {
        self.store.create(record, idempotency).await
    }

    fn precedes_queue(&self) -> bool {
        self.store.precedes_queue()
    }

    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError> {
        self.store.start(id, attempt, worker, at).await
    }

    /// What was refused is not what became of the invocation, and is not told.
    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError> {
        let stored = self.store.finish(record.clone()).await?;
        if stored {
            self.log.append(record);
        }
        Ok(stored)
    }

    fn finish_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        self.store.finish_behind(record.clone())?;
        self.log.append(record);
        Ok(())
    }

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError> {
        self.store.get(id).await
    }

    async fn list(&self, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
        self.store.list(query).await
    }

    async fn waited_for(&self, until: Timestamp, max: usize) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
        self.store.waited_for(until, max).await
    }
}
