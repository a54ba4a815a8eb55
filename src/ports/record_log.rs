//! Where final records are told beside the store: a log that people search.

use std::sync::Arc;

use crate::domain::invocation::StoredRecord;

pub trait RecordLog: Send + Sync + 'static {
    /// Never waits and never fails: what can't be taken is dropped and counted.
    fn append(&self, record: Arc<StoredRecord>);
}
