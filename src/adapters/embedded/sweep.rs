//! Clears away what is over, in steps small enough that nobody's write waits long behind one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::config::Retention;
use crate::domain::ids::Digest;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;

use super::artifacts::Artifacts;
use super::errors::{io_error, stopped};
use super::metrics::Metrics;
use super::records::{seq_at, without_result};
use super::schema::used_bytes;
use super::store::Store;

/// Rows that one step deletes; a few milliseconds.
const ROWS_MAX: u64 = 1000;
/// Rows that one step rewrites; each may hold megabytes.
const REWRITES_MAX: u64 = 16;
/// Pages that one step gives back to the file system.
const PAGES_MAX: u64 = 1000;
/// Every how many sweeps artifacts are gone through: it reads a directory entry of each.
const ARTIFACTS_EVERY: u64 = 60;
/// Asked-for sweeps that wait.
const ASKED_MAX: usize = 16;

type Ask = oneshot::Sender<Result<(), StoreError>>;

pub(super) struct Sweeper {
    ask: std::sync::Mutex<Option<SyncSender<Ask>>>,
}

impl Sweeper {
    pub fn start(
        store: Arc<Store>,
        artifacts: Arc<Artifacts>,
        clock: Arc<dyn Clock>,
        retention: Retention,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let (ask, asked) = mpsc::sync_channel::<Ask>(ASKED_MAX);
        let sweep = Sweep { store, artifacts, clock, retention, metrics };
        let every = Duration::from_secs(sweep.retention.sweep_s.max(1));
        let run = move || {
            for count in 1_u64.. {
                match asked.recv_timeout(every) {
                    Ok(ask) => {
                        let _ = ask.send(sweep.run(true));
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(error) = sweep.run(count % ARTIFACTS_EVERY == 0) {
                            tracing::warn!(%error, "sweep ended early");
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        let started = thread::Builder::new().name("store-sweep".to_owned()).spawn(run);
        started.map_err(|error| io_error("start a thread", &error))?;
        Ok(Self { ask: std::sync::Mutex::new(Some(ask)) })
    }

    pub async fn sweep_now(&self) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        {
            let ask = super::locked(&self.ask);
            let ask = ask.as_ref().ok_or_else(stopped)?;
            ask.try_send(sender).map_err(|_| StoreError::Unavailable("a sweep is running".to_owned()))?;
        }
        receiver.await.map_err(|_| stopped())?
    }

    pub fn close(&self) {
        super::locked(&self.ask).take();
    }
}

#[async_trait]
impl Spare for Sweeper {
    fn name(&self) -> &'static str {
        "what_is_over"
    }

    /// How many bytes it was is the file system's to say.
    async fn give_back(&self, _wanted: u64) -> u64 {
        if let Err(error) = self.sweep_now().await {
            tracing::warn!(%error, "what is over stays for now");
        }
        0
    }
}

struct Sweep {
    store: Arc<Store>,
    artifacts: Arc<Artifacts>,
    clock: Arc<dyn Clock>,
    retention: Retention,
    metrics: Metrics,
}

impl Sweep {
    fn run(&self, with_artifacts: bool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let before = |seconds: u64| Timestamp(now.as_millis().saturating_sub(seconds.saturating_mul(1000)));
        let logs = before(self.retention.logs_s);
        let results = before(self.retention.results_s).as_millis() as i64;
        self.repeat(move |connection| drop_records_before(connection, seq_at(logs)))?;
        self.repeat(move |connection| strip_results(connection, now))?;
        self.repeat(move |connection| drop_idempotency(connection, results, now))?;
        self.repeat(move |connection| drop_functions(connection, logs))?;
        self.sweep_dead_letters(logs)?;
        self.bound_records()?;
        self.repeat(give_pages_back)?;
        if with_artifacts {
            let referenced = |digest| self.store.read_blocking(move |connection| is_referenced(connection, digest));
            let collected = self.artifacts.collect(logs, referenced)?;
            self.metrics.artifacts_collected.inc_by(collected);
        }
        Ok(())
    }

    /// Repeats a step until it finds nothing more to do.
    fn repeat(
        &self,
        step: impl Fn(&Connection) -> Result<bool, StoreError> + Copy + Send + 'static,
    ) -> Result<(), StoreError> {
        while self.store.write_blocking(step)? {}
        Ok(())
    }

    fn sweep_dead_letters(&self, before: Timestamp) -> Result<(), StoreError> {
        let before = before.as_millis() as i64;
        self.repeat(move |connection| delete(connection, "dead_letters WHERE died_at < ?1", before))?;
        let count = self.store.read_blocking(|connection| Ok(super::dead_letters::count(connection)?))?;
        self.store.dead_letters.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Drops the oldest records while there are too many, or the file is too large.
    fn bound_records(&self) -> Result<(), StoreError> {
        let (records_max, bytes_max) = (self.retention.records_max, self.retention.store_bytes_max);
        let metrics = self.metrics.clone();
        let records: u64 = self.store.read_blocking(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?)
        })?;
        let mut over = records.saturating_sub(records_max);
        loop {
            let metrics = metrics.clone();
            let dropped = self.store.write_blocking(move |connection| {
                let used = used_bytes(connection)?;
                metrics.used_bytes.set(used as i64);
                let is_large = used > bytes_max / 10 * 9;
                drop_oldest_records(connection, if is_large { ROWS_MAX } else { over.min(ROWS_MAX) })
            })?;
            over = over.saturating_sub(dropped);
            if dropped == 0 {
                return Ok(());
            }
        }
    }
}

/// Deletes up to [`ROWS_MAX`] rows; `true` if there may be more.
fn delete(connection: &Connection, which: &str, bound: i64) -> Result<bool, StoreError> {
    let table = which.split(' ').next().unwrap_or(which);
    let sql = format!("DELETE FROM {table} WHERE seq IN (SELECT seq FROM {which} LIMIT {ROWS_MAX})");
    Ok(connection.prepare_cached(&sql)?.execute([bound])? as u64 == ROWS_MAX)
}

fn drop_records_before(connection: &Connection, seq: i64) -> Result<bool, StoreError> {
    delete(connection, "records WHERE seq < ?1", seq)
}

fn drop_oldest_records(connection: &Connection, rows: u64) -> Result<u64, StoreError> {
    if rows == 0 {
        return Ok(0);
    }
    // An invocation that is still to run keeps its record.
    let mut statement = connection.prepare_cached(
        "DELETE FROM records WHERE seq IN
             (SELECT seq FROM records WHERE result_expires_at IS NOT NULL ORDER BY seq LIMIT ?1)",
    )?;
    Ok(statement.execute([rows])? as u64)
}

fn strip_results(connection: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT seq, body FROM records WHERE large = 1 AND result_expires_at <= ?1 LIMIT ?2")?;
    let mut update = connection.prepare_cached("UPDATE records SET body = ?2, large = 0 WHERE seq = ?1")?;
    let found: Vec<(i64, Vec<u8>)> = select
        .query_map(params![now.as_millis() as i64, REWRITES_MAX], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (seq, body) in &found {
        update.execute(params![seq, without_result(body)?])?;
    }
    Ok(found.len() as u64 == REWRITES_MAX)
}

/// A key whose invocation still runs, or whose result still stands, stays.
fn drop_idempotency(connection: &Connection, before: i64, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM idempotency WHERE (owner, function, key) IN
             (SELECT owner, function, key FROM idempotency AS used WHERE created_at < ?1 AND NOT EXISTS
                 (SELECT 1 FROM records WHERE id = used.invocation
                     AND (result_expires_at IS NULL OR result_expires_at > ?2))
              LIMIT ?3)",
    )?;
    Ok(statement.execute(params![before, now.as_millis() as i64, ROWS_MAX])? as u64 == ROWS_MAX)
}

fn drop_functions(connection: &Connection, before: Timestamp) -> Result<bool, StoreError> {
    let before = before.as_millis() as i64;
    connection
        .prepare_cached("DELETE FROM versions WHERE function IN (SELECT id FROM functions WHERE deleted_at < ?1)")?
        .execute([before])?;
    connection.prepare_cached("DELETE FROM functions WHERE deleted_at < ?1")?.execute([before])?;
    Ok(false)
}

fn give_pages_back(connection: &Connection) -> Result<bool, StoreError> {
    let free: u64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free == 0 {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_MAX})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(free > PAGES_MAX)
}

fn is_referenced(connection: &Connection, digest: Digest) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM versions WHERE code = ?1) OR EXISTS (SELECT 1 FROM jobs WHERE digest = ?1)
             OR EXISTS (SELECT 1 FROM dead_letters WHERE digest = ?1)",
    )?;
    Ok(statement.query_row([digest.0], |row| row.get(0))?)
}
