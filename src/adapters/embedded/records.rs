//! Invocation records as rows: how they are written, on which conditions, and how they are read back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::ids::{InvocationId, Owner, WorkerId};
use crate::domain::invocation::{Mode, Record, StoredRecord};
use crate::domain::outcome::Status;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;

use super::errors::damaged;

/// A row number holds the time of creation above this many bits of counter.
const COUNTER_BITS: u32 = 20;
/// Beyond it (the year 2248) row numbers would not fit.
const MS_MAX: u64 = (1 << (63 - COUNTER_BITS)) - 1;
/// Row numbers tried until one is free. More than one is needed only when the counter comes round within a millisecond.
const SEQ_TRIES: u32 = 8;
/// An expired result above this size is taken out of its row; below, it is merely not shown.
const RESULT_KEPT_BYTES: usize = 1024;

/// What a listing reads of each row.
pub(super) const COLUMNS: &str = "seq, owner, mode, status, attempt, worker, started_at, result_expires_at, body";

/// Final records stand; a later attempt that has begun stands against an earlier one's outcome.
const UPSERT: &str = "INSERT INTO records (seq, id, owner, function, mode, status, attempt, result_expires_at, large, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (id) DO UPDATE SET status = excluded.status, attempt = excluded.attempt, worker = NULL, started_at = NULL,
        result_expires_at = excluded.result_expires_at, large = excluded.large, body = excluded.body
    WHERE status = 'QUEUED' OR (status = 'RUNNING' AND attempt <= excluded.attempt)";

const INSERT: &str =
    "INSERT INTO records (seq, id, owner, function, mode, status, attempt, result_expires_at, large, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING";

const START: &str = "UPDATE records SET status = 'RUNNING', attempt = ?2, worker = ?3, started_at = ?4
    WHERE id = ?1 AND (status = 'QUEUED' OR (status = 'RUNNING' AND attempt <= ?2))";

/// The first row number of a millisecond.
pub(super) fn seq_at(at: Timestamp) -> i64 {
    (at.as_millis().min(MS_MAX) << COUNTER_BITS) as i64
}

pub(super) struct RecordRows {
    results_ms: u64,
    counter: AtomicU64,
}

/// A record on its way in, already in the form it is stored in.
pub(super) struct EncodedRecord {
    stored: Arc<StoredRecord>,
    body: Bytes,
}

impl EncodedRecord {
    pub fn new(stored: Arc<StoredRecord>) -> Result<Self, StoreError> {
        let body = written(&stored)?;
        Ok(Self { stored, body })
    }

    pub fn id(&self) -> InvocationId {
        self.stored.record.request_id
    }
}

fn written(stored: &StoredRecord) -> Result<Bytes, StoreError> {
    stored.json().map_err(|error| damaged("write a record", error))
}

fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, record).map_err(|error| damaged("write a record", error))?;
    Ok(body)
}

impl RecordRows {
    pub fn new(results_s: u64) -> Self {
        Self { results_ms: results_s.saturating_mul(1000), counter: AtomicU64::new(0) }
    }

    /// Stores final records, each on condition that none stands against it.
    pub fn store_all(&self, connection: &Connection, records: &[Arc<StoredRecord>]) -> Result<(), StoreError> {
        for stored in records {
            self.put(connection, UPSERT, stored, &written(stored)?)?;
        }
        Ok(())
    }

    /// Stores a final record; `false`: what is stored stands.
    pub fn finish(&self, connection: &Connection, record: &EncodedRecord) -> Result<bool, StoreError> {
        self.put(connection, UPSERT, &record.stored, &record.body)
    }

    /// Stores a record that is new; one of the same id stands.
    pub fn create(&self, connection: &Connection, record: &EncodedRecord) -> Result<bool, StoreError> {
        self.put(connection, INSERT, &record.stored, &record.body)
    }

    fn put(&self, connection: &Connection, sql: &str, stored: &StoredRecord, body: &[u8]) -> Result<bool, StoreError> {
        let record = &stored.record;
        let large = record.result.as_ref().is_some_and(|result| result.get().len() > RESULT_KEPT_BYTES);
        let mut statement = connection.prepare_cached(sql)?;
        for _ in 0..SEQ_TRIES {
            let counted = self.counter.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
            let done = statement.execute(params![
                seq_at(record.created_at) | counted as i64,
                record.request_id.0.as_bytes(),
                &*stored.owner.0,
                record.function_id.0.as_bytes(),
                mode_str(stored.mode),
                record.status.as_str(),
                record.attempt,
                self.result_expiry(record),
                large,
                body,
            ]);
            match done {
                Ok(changed) => return Ok(changed > 0),
                Err(error) if is_row_number_taken(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Unavailable("no row number is free in this millisecond".to_owned()))
    }

    /// Absent while the record is not final.
    fn result_expiry(&self, record: &Record) -> Option<i64> {
        let finished = record.finished_at.unwrap_or(record.created_at).as_millis();
        record.status.is_final().then(|| i64::try_from(finished.saturating_add(self.results_ms)).unwrap_or(i64::MAX))
    }

    pub fn start(
        &self,
        connection: &Connection,
        id: InvocationId,
        attempt: u32,
        worker: WorkerId,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut statement = connection.prepare_cached(START)?;
        Ok(statement.execute(params![id.0.as_bytes(), attempt, worker.0.as_bytes(), at.as_millis() as i64])? > 0)
    }
}

fn is_row_number_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| {
        matches!(
            failure.extended_code,
            rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY | rusqlite::ffi::SQLITE_CONSTRAINT_ROWID
        )
    })
}

/// A row read back.
pub(super) struct RecordRow {
    pub seq: i64,
    pub stored: StoredRecord,
    pub result_expires_at: Option<i64>,
    /// Size of the row's body.
    pub bytes: usize,
}

impl RecordRow {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.result_expires_at.is_some_and(|at| at <= now.as_millis() as i64)
    }

    /// What [`UPSERT`] will decide when the other is written.
    pub fn gives_way_to(&self, other: &StoredRecord) -> bool {
        let record = &self.stored.record;
        match record.status {
            Status::Queued => true,
            Status::Running => record.attempt <= other.record.attempt,
            _ => false,
        }
    }

    /// Reads a row of [`COLUMNS`].
    pub fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let body = row.get_ref(8)?.as_blob().map_err(|error| damaged("read a record", error))?;
        let mut record: Record = serde_json::from_slice(body).map_err(|error| damaged("read a record", error))?;
        let status = row.get_ref(3)?.as_str().ok().and_then(Status::parse);
        if status == Some(Status::Running) {
            let worker: Option<[u8; 16]> = row.get(5)?;
            let at: Option<i64> = row.get(6)?;
            if let (Some(worker), Some(at)) = (worker, at) {
                record.start(row.get(4)?, WorkerId(uuid::Uuid::from_bytes(worker)), Timestamp(at as u64));
            }
        }
        let owner = Owner::new(row.get_ref(1)?.as_str().map_err(|error| damaged("read a record", error))?);
        let mode = mode_of(row.get_ref(2)?);
        Ok(Self {
            seq: row.get(0)?,
            stored: StoredRecord::new(owner, mode, record),
            result_expires_at: row.get(7)?,
            bytes: body.len(),
        })
    }

    pub fn by_id(connection: &Connection, id: InvocationId) -> Result<Option<Self>, StoreError> {
        let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM records WHERE id = ?1"))?;
        statement.query_row([id.0.as_bytes()], |row| Ok(Self::read(row))).optional()?.transpose()
    }
}

/// Takes the result out of a record's stored form.
pub(super) fn without_result(body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut record: Record = serde_json::from_slice(body).map_err(|error| damaged("read a record", error))?;
    record.result = None;
    encode(&record)
}

pub(super) fn mode_of(stored: ValueRef<'_>) -> Mode {
    if stored.as_str() == Ok("async") { Mode::Async } else { Mode::Sync }
}

pub(super) fn mode_str(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "sync",
        Mode::Async => "async",
    }
}
