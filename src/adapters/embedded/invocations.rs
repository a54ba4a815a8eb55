//! Invocation records and idempotency keys.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::Status;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};

use super::cursor;
use super::records::{COLUMNS, EncodedRecord, RecordRow, seq_at};
use super::store::Store;

/// Records on one page, whatever was asked for.
const PAGE_MAX: usize = 1000;
/// A page ends early when its records hold this much, so that a listing of long outputs does not fill the memory.
const PAGE_BYTES_MAX: usize = 8 << 20;

pub(super) struct Invocations {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
}

impl Invocations {
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl InvocationStore for Invocations {
    async fn create(&self, record: StoredRecord, idempotency: Option<Idempotency>) -> Result<Created, StoreError> {
        let record = EncodedRecord::new(Arc::new(record))?;
        let rows = self.store.rows.clone();
        let now = self.clock.now();
        self.store
            .write(move |connection| {
                if let Some(used) = &idempotency
                    && let Some(before) = earlier_use(connection, used, now)?
                {
                    return Ok(before);
                }
                rows.create(connection, &record)?;
                if let Some(used) = &idempotency {
                    remember_use(connection, used, record.id(), now)?;
                }
                Ok(Created::New)
            })
            .await
    }

    /// The writer makes changes in the order in which they come.
    fn precedes_queue(&self) -> bool {
        true
    }

    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError> {
        let rows = self.store.rows.clone();
        self.store.write(move |connection| rows.start(connection, id, attempt, worker, at)).await
    }

    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError> {
        let record = EncodedRecord::new(record)?;
        let rows = self.store.rows.clone();
        self.store.write(move |connection| rows.finish(connection, &record)).await
    }

    fn finish_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        self.store.write_behind(record)
    }

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError> {
        // Asked first: what is written meanwhile is in the file then.
        let pending = self.store.pending(id);
        let now = self.clock.now();
        let row = self.store.read(move |connection| RecordRow::by_id(connection, id)).await?;
        Ok(match (row, pending) {
            (Some(row), _) if row.is_expired(now) => {
                Lookup::Expired { function: row.stored.record.function_id, owner: row.stored.owner }
            }
            (Some(row), Some(pending)) if row.gives_way_to(&pending) => Lookup::Found(pending),
            (Some(row), _) => Lookup::Found(Arc::new(row.stored)),
            (None, Some(pending)) => Lookup::Found(pending),
            (None, None) => Lookup::Unknown,
        })
    }

    async fn list(&self, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
        let now = self.clock.now();
        let below = cursor::decode_below(query.cursor.as_deref())?;
        let query = query.clone();
        self.store.read(move |connection| list(connection, &query, below, now)).await
    }
}

/// A key lives as long as the result that it would answer with.
fn earlier_use(connection: &Connection, used: &Idempotency, now: Timestamp) -> Result<Option<Created>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT request, invocation FROM idempotency JOIN records ON records.id = invocation
         WHERE idempotency.owner = ?1 AND idempotency.function = ?2 AND key = ?3
           AND (result_expires_at IS NULL OR result_expires_at > ?4)",
    )?;
    let found = statement
        .query_row(params![&*used.owner.0, used.function.0.as_bytes(), used.key, now.as_millis() as i64], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, [u8; 16]>(1)?))
        })
        .optional()?;
    Ok(found.map(|(request, id)| {
        if request == used.request.0 {
            Created::Existing(InvocationId(uuid::Uuid::from_bytes(id)))
        } else {
            Created::KeyReused
        }
    }))
}

fn remember_use(
    connection: &Connection,
    used: &Idempotency,
    id: InvocationId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (owner, function, key, request, invocation, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    statement.execute(params![
        &*used.owner.0,
        used.function.0.as_bytes(),
        used.key,
        used.request.0,
        id.0.as_bytes(),
        now.as_millis() as i64
    ])?;
    Ok(())
}

fn list(
    connection: &Connection,
    query: &RecordQuery,
    below: i64,
    now: Timestamp,
) -> Result<Page<Arc<StoredRecord>>, StoreError> {
    let limit = query.limit.clamp(1, PAGE_MAX);
    let (sql, values) = listing(query, below);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = Page { items: Vec::new(), next_cursor: None };
    let (mut bytes, mut last) = (0, 0);
    while let Some(row) = rows.next()? {
        if page.items.len() == limit || bytes >= PAGE_BYTES_MAX {
            page.next_cursor = Some(cursor::encode_below(last));
            break;
        }
        let mut row = RecordRow::read(row)?;
        if row.is_expired(now) {
            row.stored.record.result = None;
        }
        (bytes, last) = (bytes + row.bytes, row.seq);
        page.items.push(Arc::new(row.stored));
    }
    Ok(page)
}

/// The statement and its values. A `+` keeps a column from being looked up by index: the planner knows no statistics, and one
/// index is chosen here, the narrowest first.
fn listing(query: &RecordQuery, below: i64) -> (String, Vec<Value>) {
    let until = query.until.map_or(i64::MAX, |until| seq_at(Timestamp(until.as_millis().saturating_add(1))));
    let mut values = vec![Value::from(below.min(until)), Value::from(query.since.map_or(0, seq_at))];
    let mut sql = format!("SELECT {COLUMNS} FROM records WHERE seq < ?1 AND seq >= ?2");
    let mut narrow = |column: &str, value: Value, by_index: bool| {
        values.push(value);
        let plus = if by_index { "" } else { "+" };
        sql.push_str(&format!(" AND {plus}{column} = ?{}", values.len()));
    };
    let by_id = query.invocation.is_some();
    let status = query.status.filter(|status| *status != Status::Success);
    let by_status = status.is_some() && !by_id;
    // A function's failed calls have an index of their own.
    let failed = status.is_some_and(Status::is_final) && query.function.is_some();
    if let Some(id) = query.invocation {
        narrow("id", Value::from(id.0.as_bytes().to_vec()), true);
    }
    if let Some(status) = query.status {
        narrow("status", Value::from(status.as_str().to_owned()), by_status);
    }
    if let Some(function) = query.function {
        narrow("function", Value::from(function.0.as_bytes().to_vec()), !by_id && (failed || !by_status));
    }
    if let Some(owner) = &query.owner {
        narrow("owner", Value::from(owner.0.to_string()), !by_id && !by_status && query.function.is_none());
    }
    // Says to the planner, in the schema's words, that the partial index holds all such rows.
    if failed {
        sql.push_str(" AND status NOT IN ('SUCCESS', 'QUEUED', 'RUNNING')");
    } else if status.is_some() {
        sql.push_str(" AND status <> 'SUCCESS'");
    }
    sql.push_str(" ORDER BY seq DESC");
    (sql, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{FunctionId, Owner};

    fn plan(query: &RecordQuery) -> String {
        let connection = Connection::open_in_memory().unwrap();
        for schema in [include_str!("schema/1.sql"), include_str!("schema/3.sql")] {
            connection.execute_batch(schema).unwrap();
        }
        let (sql, values) = listing(query, i64::MAX);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn every_listing_walks_one_index_in_order() {
        let function = Some(FunctionId(uuid::Uuid::nil()));
        let owner = Some(Owner::new("ann"));
        for (query, index) in [
            (RecordQuery::default(), "INTEGER PRIMARY KEY"),
            (RecordQuery { owner: owner.clone(), ..Default::default() }, "records_owner"),
            (RecordQuery { owner: owner.clone(), function, ..Default::default() }, "records_function"),
            (RecordQuery { status: Some(Status::Failed), ..Default::default() }, "records_status"),
            (RecordQuery { function, status: Some(Status::Running), ..Default::default() }, "records_status"),
            (RecordQuery { owner, function, status: Some(Status::Failed), ..Default::default() }, "records_failed"),
            (RecordQuery { function, status: Some(Status::Dead), ..Default::default() }, "records_failed"),
            (RecordQuery { function, status: Some(Status::Success), ..Default::default() }, "records_function"),
        ] {
            let plan = plan(&query);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
        }
    }
}
