//! Records that a killed daemon left open: not final, and without a job that would end them. They are those of synchronous calls
//! with an `Idempotency-Key`, and of asynchronous ones whose 202 was never sent. Nobody runs them any more.

use std::sync::Arc;

use rusqlite::{Connection, params, params_from_iter};

use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;

use super::Embedded;
use super::records::{COLUMNS, EncodedRecord, RecordRow, RecordRows};

/// Records ended in one commit.
const STEP: usize = 500;

impl Embedded {
    /// Ends every abandoned record as FAILED, and gives its idempotency key free: the request may be sent again, as a new
    /// invocation. How many they were. Only right before anything runs.
    ///
    /// # Errors
    /// The store's; what was ended until then stays so.
    pub async fn end_abandoned(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut ended = 0;
        loop {
            let rows = self.store.rows.clone();
            match self.store.write(move |connection| end_some(connection, &rows, now)).await? {
                0 => return Ok(ended),
                some => ended += some,
            }
        }
    }
}

fn end_some(connection: &Connection, rows: &RecordRows, now: Timestamp) -> Result<usize, StoreError> {
    let mut ids = Vec::new();
    for mut stored in some(connection)? {
        let failure = Failure::new(ErrorType::PlatformError, "the daemon ended before this call did; send it again");
        stored.record.finish(Outcome::without_execution(Status::Failed, failure), now);
        let record = EncodedRecord::new(Arc::new(stored))?;
        if rows.finish(connection, &record)? {
            ids.push(record.id());
        }
    }
    let places = vec!["?"; ids.len()].join(", ");
    let sql = format!("DELETE FROM idempotency WHERE invocation IN ({places})");
    connection.execute(&sql, params_from_iter(ids.iter().map(|id| id.0.as_bytes())))?;
    Ok(ids.len())
}

fn some(connection: &Connection) -> Result<Vec<StoredRecord>, StoreError> {
    // Says to the planner that the partial index on `status` holds all such rows.
    let sql = format!(
        "SELECT {COLUMNS} FROM records WHERE status IN ('QUEUED', 'RUNNING') AND status <> 'SUCCESS'
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = records.id) LIMIT ?1"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut found = statement.query(params![STEP])?;
    let mut records = Vec::new();
    while let Some(row) = found.next()? {
        records.push(RecordRow::read(row)?.stored);
    }
    Ok(records)
}
