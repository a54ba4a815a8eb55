//! The one thread that writes: it takes what waits, commits it together, and answers.
//!
//! A change that fails must not take its batch mates along: their transaction is rolled back and each is tried in one of its own.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;

use crate::domain::invocation::StoredRecord;
use crate::ports::StoreError;

use super::inbox::{Batch, Change, Inbox};
use super::metrics::Metrics;
use super::records::RecordRows;

pub(super) struct Writer {
    pub connection: Connection,
    pub inbox: Arc<Inbox>,
    pub rows: Arc<RecordRows>,
    pub metrics: Metrics,
    /// Held until the last byte is written.
    pub lock: File,
}

impl Writer {
    /// Runs until the inbox is closed and empty.
    pub fn run(self) {
        let _abandon = AbandonOnExit(self.inbox.clone());
        while let Some(batch) = self.inbox.next_batch() {
            self.write(batch);
        }
        // The log is folded into the file, so that a copy of the file alone is whole.
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "checkpoint at close failed");
        }
        let Self { connection, lock, .. } = self;
        drop(connection);
        drop(lock);
    }

    fn write(&self, Batch { records, mut changes }: Batch) {
        let began = Instant::now();
        self.metrics.batch.observe((records.len() + changes.len()) as f64);
        match self.commit(&records, &mut changes) {
            Ok(()) => answer_all(changes, &Ok(())),
            Err(Failed::Together(error)) => {
                self.lost(&records, &error);
                answer_all(changes, &Err(error));
            }
            Err(Failed::Apart) => self.write_apart(&records, changes),
        }
        self.inbox.written(&records);
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
    }

    /// One transaction around all of it.
    fn commit(&self, records: &[Arc<StoredRecord>], changes: &mut [Box<dyn Change>]) -> Result<(), Failed> {
        let together = |error: rusqlite::Error| Failed::Together(error.into());
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.connection, rusqlite::TransactionBehavior::Immediate)
                .map_err(together)?;
        self.rows.store_all(&transaction, records).map_err(|error| apart(error, records.len() + changes.len()))?;
        let size = records.len() + changes.len();
        for change in changes {
            change.apply(&transaction).map_err(|error| apart(error, size))?;
        }
        transaction.commit().map_err(together)
    }

    fn write_apart(&self, records: &[Arc<StoredRecord>], changes: Vec<Box<dyn Change>>) {
        let error_of = |failed| match failed {
            Failed::Together(error) => error,
            Failed::Apart => StoreError::Unavailable("a change failed by itself".to_owned()),
        };
        for record in records {
            if let Err(failed) = self.commit(std::slice::from_ref(record), &mut []) {
                self.lost(std::slice::from_ref(record), &error_of(failed));
            }
        }
        for mut change in changes {
            let committed = self.commit(&[], std::slice::from_mut(&mut change)).map_err(error_of);
            change.answer(committed);
        }
    }

    fn lost(&self, records: &[Arc<StoredRecord>], error: &StoreError) {
        if !records.is_empty() {
            self.metrics.lost.inc_by(records.len() as u64);
            tracing::error!(records = records.len(), %error, "records written behind were lost");
        }
    }
}

enum Failed {
    /// The transaction itself could not be begun or committed: nobody's change is stored.
    Together(StoreError),
    /// One of several failed: each deserves a try of its own.
    Apart,
}

fn apart(error: StoreError, size: usize) -> Failed {
    if size > 1 { Failed::Apart } else { Failed::Together(error) }
}

fn answer_all(changes: Vec<Box<dyn Change>>, committed: &Result<(), StoreError>) {
    for change in changes {
        change.answer(committed.clone());
    }
}

/// However the writer ends, nobody waits for it for ever.
struct AbandonOnExit(Arc<Inbox>);

impl Drop for AbandonOnExit {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
