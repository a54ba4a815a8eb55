//! Dead letters: jobs that were given up, newest kept.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::ids::{InvocationId, Owner};
use crate::domain::invocation::Mode;
use crate::domain::job::DeadLetter;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::queue::DeadLetters;

use super::cursor;
use super::queue::{Queue, read_job};

/// Letters on one page; a payload may be a mebibyte.
const PAGE_MAX: usize = 100;

const COLUMNS: &str =
    "id, owner, function, version, payload, digest, model, accepted_at, attempts, reason, died_at, seq";

pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))
}

/// Copies a job among the dead letters.
pub(super) fn insert(
    connection: &Connection,
    id: InvocationId,
    attempts: u32,
    reason: &str,
    died_at: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO dead_letters
             (id, owner, function, version, payload, digest, model, accepted_at, attempts, reason, died_at)
         SELECT id, owner, function, version, payload, digest, model, accepted_at, ?2, ?3, ?4 FROM jobs WHERE id = ?1",
    )?;
    statement.execute(params![id.0.as_bytes(), attempts, reason, died_at.as_millis() as i64])?;
    Ok(())
}

pub(super) fn drop_oldest(connection: &Connection, letters: u64) -> Result<(), StoreError> {
    if letters > 0 {
        let mut statement = connection.prepare_cached(
            "DELETE FROM dead_letters WHERE seq IN (SELECT seq FROM dead_letters ORDER BY seq LIMIT ?1)",
        )?;
        statement.execute([letters])?;
    }
    Ok(())
}

/// Nobody waits for a letter's job any more.
fn read(row: &Row<'_>) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        job: read_job(row, Mode::Async)?,
        attempts: row.get(8)?,
        reason: row.get(9)?,
        died_at: Timestamp(row.get(10)?),
    })
}

#[async_trait]
impl DeadLetters for Queue {
    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let below = cursor::decode_below(cursor)?;
        let (owner, limit) = (owner.cloned(), limit.clamp(1, PAGE_MAX));
        self.store.read(move |connection| list(connection, owner.as_ref(), limit, below)).await
    }

    async fn get(&self, id: InvocationId) -> Result<Option<DeadLetter>, StoreError> {
        self.store
            .read(move |connection| {
                let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE id = ?1");
                let mut statement = connection.prepare_cached(&sql)?;
                statement.query_row([id.0.as_bytes()], |row| Ok(read(row))).optional()?.transpose()
            })
            .await
    }

    async fn remove(&self, id: InvocationId) -> Result<bool, StoreError> {
        let removed = self
            .store
            .write(move |connection| {
                let mut statement = connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?;
                Ok(statement.execute([id.0.as_bytes()])? > 0)
            })
            .await?;
        if removed {
            let letters = &self.store.dead_letters;
            let _ = letters.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        }
        Ok(removed)
    }
}

fn list(
    connection: &Connection,
    owner: Option<&Owner>,
    limit: usize,
    below: i64,
) -> Result<Page<DeadLetter>, StoreError> {
    let whose = if owner.is_some() { "owner = ?2" } else { "?2 IS NULL" };
    let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE seq < ?1 AND {whose} ORDER BY seq DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![below, owner.map(|owner| &*owner.0)])?;
    let mut page = Page { items: Vec::new(), next_cursor: None };
    let mut last = 0;
    while let Some(row) = rows.next()? {
        if page.items.len() == limit {
            page.next_cursor = Some(cursor::encode_below(last));
            break;
        }
        last = row.get(11)?;
        page.items.push(read(row)?);
    }
    Ok(page)
}
