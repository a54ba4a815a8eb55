//! The environments of versions, as they lie in the database: sealed by the vault, each bound to its version.
//!
//! The column `versions.env` holds a blob. A text there was written before there was a vault; it is sealed at the next start, as is
//! what was sealed with a key that has been followed by another.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

use crate::adapters::sealed_env::{self, about};
use crate::domain::env::Env;
use crate::domain::ids::{FunctionId, VersionKey};
use crate::ports::StoreError;
use crate::ports::vault::{Vault, VaultError};

use super::OpenError;
use super::errors::damaged;

/// Rows sealed again in one transaction.
const BATCH_ROWS: usize = 500;

pub(super) fn open(vault: &dyn Vault, key: VersionKey, stored: ValueRef<'_>) -> Result<Env, StoreError> {
    match stored {
        ValueRef::Blob(sealed) => sealed_env::open(vault, key, sealed),
        _ => Err(damaged(&format!("open the environment of {key:?}"), VaultError::Damaged)),
    }
}

/// Seals what lies there readable or under an older key, and makes sure that the vault has every key that is needed. How many
/// rows were written.
///
/// # Errors
/// Where a key is missing: better at the start than at the first call of each function.
pub(super) fn bring_up_to_date(connection: &mut Connection, vault: &dyn Vault) -> Result<u64, OpenError> {
    let mut written = 0;
    let mut after = (Vec::new(), 0);
    while let Some(batch) = stale(connection, vault, &mut after)? {
        if batch.is_empty() {
            continue;
        }
        if written == 0 {
            // What was there before is overwritten, in the file and, below, in its log.
            connection.execute_batch("PRAGMA secure_delete = ON")?;
        }
        let transaction = connection.transaction()?;
        for (key, sealed) in &batch {
            transaction
                .prepare_cached("UPDATE versions SET env = ?3 WHERE function = ?1 AND number = ?2")?
                .execute(params![key.function.0.as_bytes(), key.number, sealed])?;
        }
        transaction.commit()?;
        written += batch.len() as u64;
    }
    if written > 0 {
        connection.execute_batch("PRAGMA secure_delete = OFF; PRAGMA wal_checkpoint(TRUNCATE);")?;
        tracing::info!(versions = written, "sealed environments with the newest key");
    }
    Ok(written)
}

type Sealed = Vec<(VersionKey, Vec<u8>)>;

/// Of the next rows after `after`, those to be written, sealed anew. `None` behind the last.
fn stale(connection: &Connection, vault: &dyn Vault, after: &mut (Vec<u8>, u32)) -> Result<Option<Sealed>, OpenError> {
    let mut statement = connection.prepare_cached(
        "SELECT function, number, env FROM versions WHERE (function, number) > (?1, ?2)
         ORDER BY function, number LIMIT ?3",
    )?;
    let mut rows = statement.query(params![after.0, after.1, BATCH_ROWS as u64])?;
    let mut batch = None;
    while let Some(row) = rows.next()? {
        let batch = batch.get_or_insert_with(Sealed::new);
        let (function, number): ([u8; 16], u32) = (row.get(0)?, row.get(1)?);
        *after = (function.to_vec(), number);
        let key = VersionKey { function: FunctionId(uuid::Uuid::from_bytes(function)), number };
        let plain = match row.get_ref(2)? {
            ValueRef::Text(text) => text.to_vec(),
            ValueRef::Blob(sealed) if vault.is_current(sealed) => continue,
            ValueRef::Blob(sealed) => vault.open(sealed, &about(key)).map_err(|error| refused(key, error))?,
            _ => return Err(refused(key, VaultError::Damaged)),
        };
        let plain = Zeroizing::new(plain);
        batch.push((key, vault.seal(&plain, &about(key)).map_err(|error| refused(key, error))?));
    }
    Ok(batch)
}

fn refused(key: VersionKey, cause: VaultError) -> OpenError {
    OpenError::Sealed { function: key.function, version: key.number, cause }
}
