//! The database file: how it is opened, its tables, and how an older file becomes a current one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// Statement `n` brings a file from schema version `n` to `n + 1`. Never edit one that was released: add the next.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
];

/// Another process (its owner with `sqlite3`, say) may hold the file for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Statements kept prepared; listings come in a few dozen shapes.
const STATEMENTS_KEPT: usize = 64;

const PAGE_BYTES: u64 = 4096;

/// Opens the file for the writer: made if need be, brought to the current schema, never larger than `bytes_max`.
pub(super) fn open_writer(path: &Path, bytes_max: u64) -> Result<Connection, OpenError> {
    // Made here so that it is private from its first moment; SQLite gives its other files the same mode.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|cause| OpenError::io("create the database", path, cause))?;
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // `auto_vacuum` counts only before the first table is made. A commit is one fsync of the log; every 16 MiB the log is
    // copied into the file.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 16777216;",
    )?;
    migrate(&mut connection)?;
    connection.execute_batch(&format!("PRAGMA max_page_count = {}", (bytes_max / PAGE_BYTES).max(1)))?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("PRAGMA cache_size = -256;")?;
    Ok(connection)
}

fn open(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection stays in one thread.
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.execute_batch("PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let found: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > MIGRATIONS.len() {
        return Err(OpenError::NewerSchema { found, known: MIGRATIONS.len() });
    }
    for (version, migration) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {}", version + 1))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Bytes that rows take up; the file may be larger by what was freed.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: u64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let free: u64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    Ok(pages.saturating_sub(free) * PAGE_BYTES)
}
