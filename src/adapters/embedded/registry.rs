//! Functions and versions.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::adapters::sealed_env;
use crate::domain::env::Env;
use crate::domain::function::{Function, Version};
use crate::domain::ids::{FunctionId, Owner, VersionKey};
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::registry::{Registry, RegistryError};
use crate::ports::vault::Vault;

use super::cursor;
use super::errors::damaged;
use super::sealing;
use super::store::Store;

/// Functions, or versions, on one page.
const PAGE_MAX: usize = 1000;

const FUNCTION: &str = "functions.id, functions.owner, functions.name, functions.current, functions.created_at,
    functions.updated_at";
const VERSION: &str = "versions.body, versions.env";

pub(super) struct Functions {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    vault: Arc<dyn Vault>,
}

impl Functions {
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, vault: Arc<dyn Vault>) -> Self {
        Self { store, clock, vault }
    }
}

/// A version on its way in: its environment apart from the rest, and sealed.
struct EncodedVersion {
    version: Version,
    body: String,
    env: Vec<u8>,
}

impl EncodedVersion {
    fn new(version: &Version, vault: &dyn Vault) -> Result<Self, StoreError> {
        let env = sealed_env::seal(vault, version.key(), &version.env)?;
        let version = Version { env: Env::default(), ..version.clone() };
        let body = serde_json::to_string(&version).map_err(|error| damaged("write a version", error))?;
        Ok(Self { version, body, env })
    }

    fn insert(&self, connection: &Connection) -> Result<(), StoreError> {
        let key = self.version.key();
        connection
            .prepare_cached("INSERT INTO versions (function, number, body, env, code) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![key.function.0.as_bytes(), key.number, self.body, self.env, self.version.code.0])?;
        Ok(())
    }
}

#[async_trait]
impl Registry for Functions {
    async fn create(&self, function: &Function, version: &Version) -> Result<(), RegistryError> {
        let (function, version) = (function.clone(), EncodedVersion::new(version, self.vault.as_ref())?);
        self.store.write(move |connection| create(connection, &function, &version)).await?
    }

    async fn publish(&self, version: &Version) -> Result<Function, RegistryError> {
        let version = EncodedVersion::new(version, self.vault.as_ref())?;
        self.store.write(move |connection| publish(connection, &version)).await?
    }

    async fn function(&self, id: FunctionId) -> Result<Option<Function>, StoreError> {
        self.store.read(move |connection| by_id(connection, id)).await
    }

    async fn function_named(&self, owner: &Owner, name: &str) -> Result<Option<Function>, StoreError> {
        let (owner, name) = (owner.clone(), name.to_owned());
        self.store.read(move |connection| by_name(connection, &owner, &name)).await
    }

    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError> {
        let vault = self.vault.clone();
        self.store
            .read(move |connection| {
                let sql = format!("SELECT {VERSION} FROM versions WHERE function = ?1 AND number = ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                let found = statement.query_row(params![key.function.0.as_bytes(), key.number], |row| {
                    Ok(read_version(row, 0, vault.as_ref()).map(Arc::new))
                });
                found.optional()?.transpose()
            })
            .await
    }

    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<(Function, Arc<Version>)>, StoreError> {
        let after = cursor::decode_after(cursor)?;
        let (owner, limit) = (owner.cloned(), limit.clamp(1, PAGE_MAX));
        let vault = self.vault.clone();
        self.store.read(move |connection| list(connection, vault.as_ref(), owner.as_ref(), limit, &after)).await
    }

    async fn count(&self, owner: Option<&Owner>) -> Result<u64, StoreError> {
        let owner = owner.cloned();
        self.store.read(move |connection| Ok(count(connection, owner.as_ref())?)).await
    }

    async fn versions(&self, id: FunctionId, limit: usize) -> Result<Vec<Arc<Version>>, StoreError> {
        let (limit, vault) = (limit.clamp(1, PAGE_MAX) as u64, self.vault.clone());
        self.store
            .read(move |connection| {
                let sql = format!("SELECT {VERSION} FROM versions WHERE function = ?1 ORDER BY number DESC LIMIT ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = statement.query(params![id.0.as_bytes(), limit])?;
                let mut versions = Vec::new();
                while let Some(row) = rows.next()? {
                    versions.push(Arc::new(read_version(row, 0, vault.as_ref())?));
                }
                Ok(versions)
            })
            .await
    }

    async fn delete(&self, id: FunctionId) -> Result<(), RegistryError> {
        let now = self.clock.now().as_millis() as i64;
        let deleted = self
            .store
            .write(move |connection| {
                let mut statement = connection
                    .prepare_cached("UPDATE functions SET deleted_at = ?2 WHERE id = ?1 AND deleted_at IS NULL")?;
                Ok(statement.execute(params![id.0.as_bytes(), now])? > 0)
            })
            .await?;
        if deleted { Ok(()) } else { Err(RegistryError::NotFound) }
    }
}

/// The outer error is the store's, the inner the caller's.
type Decided<T> = Result<Result<T, RegistryError>, StoreError>;

fn create(connection: &Connection, function: &Function, version: &EncodedVersion) -> Decided<()> {
    if by_name(connection, &function.owner, &function.name)?.is_some() {
        return Ok(Err(RegistryError::NameTaken));
    }
    connection
        .prepare_cached(
            "INSERT INTO functions (id, owner, name, current, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            function.id.0.as_bytes(),
            &*function.owner.0,
            &*function.name,
            version.version.number,
            function.created_at.as_millis() as i64,
            function.updated_at.as_millis() as i64,
        ])?;
    version.insert(connection)?;
    Ok(Ok(()))
}

fn publish(connection: &Connection, version: &EncodedVersion) -> Decided<Function> {
    let VersionKey { function: id, number } = version.version.key();
    let Some(mut function) = by_id(connection, id)? else {
        return Ok(Err(RegistryError::NotFound));
    };
    if function.current.checked_add(1) != Some(number) {
        return Ok(Err(RegistryError::Conflict));
    }
    version.insert(connection)?;
    function.current = number;
    function.updated_at = version.version.created_at;
    connection.prepare_cached("UPDATE functions SET current = ?2, updated_at = ?3 WHERE id = ?1")?.execute(params![
        id.0.as_bytes(),
        number,
        function.updated_at.as_millis() as i64
    ])?;
    Ok(Ok(function))
}

fn by_id(connection: &Connection, id: FunctionId) -> Result<Option<Function>, StoreError> {
    let sql = format!("SELECT {FUNCTION} FROM functions WHERE id = ?1 AND deleted_at IS NULL");
    Ok(connection.prepare_cached(&sql)?.query_row([id.0.as_bytes()], read_function).optional()?)
}

fn by_name(connection: &Connection, owner: &Owner, name: &str) -> Result<Option<Function>, StoreError> {
    let sql = format!("SELECT {FUNCTION} FROM functions WHERE owner = ?1 AND name = ?2 AND deleted_at IS NULL");
    Ok(connection.prepare_cached(&sql)?.query_row(params![&*owner.0, name], read_function).optional()?)
}

fn list(
    connection: &Connection,
    vault: &dyn Vault,
    owner: Option<&Owner>,
    limit: usize,
    (name, id): &(String, [u8; 16]),
) -> Result<Page<(Function, Arc<Version>)>, StoreError> {
    let whose = if owner.is_some() { "functions.owner = ?3" } else { "?3 IS NULL" };
    let sql = format!(
        "SELECT {FUNCTION}, {VERSION} FROM functions
         JOIN versions ON versions.function = functions.id AND versions.number = functions.current
         WHERE deleted_at IS NULL AND (functions.name, functions.id) > (?1, ?2) AND {whose}
         ORDER BY functions.name, functions.id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![name, id, owner.map(|owner| &*owner.0)])?;
    let mut page: Page<(Function, Arc<Version>)> = Page { items: Vec::new(), next_cursor: None };
    while let Some(row) = rows.next()? {
        if page.items.len() == limit {
            page.next_cursor =
                page.items.last().map(|(last, _)| cursor::encode_after(&last.name, last.id.0.into_bytes()));
            break;
        }
        page.items.push((read_function(row)?, Arc::new(read_version(row, 6, vault)?)));
    }
    Ok(page)
}

/// Reads an index and no row.
fn count(connection: &Connection, owner: Option<&Owner>) -> rusqlite::Result<u64> {
    const ALL: &str = "SELECT count(*) FROM functions WHERE deleted_at IS NULL";
    match owner {
        Some(owner) => {
            connection.prepare_cached(&format!("{ALL} AND owner = ?1"))?.query_row([&*owner.0], |row| row.get(0))
        }
        None => connection.prepare_cached(ALL)?.query_row([], |row| row.get(0)),
    }
}

/// Reads [`FUNCTION`].
fn read_function(row: &Row<'_>) -> rusqlite::Result<Function> {
    Ok(Function {
        id: FunctionId(uuid::Uuid::from_bytes(row.get(0)?)),
        owner: Owner(row.get(1)?),
        name: row.get(2)?,
        current: row.get(3)?,
        created_at: Timestamp(row.get(4)?),
        updated_at: Timestamp(row.get(5)?),
    })
}

/// Reads [`VERSION`] from column `first` on.
fn read_version(row: &Row<'_>, first: usize, vault: &dyn Vault) -> Result<Version, StoreError> {
    let failed = |error: &dyn std::fmt::Display| damaged("read a version", error);
    let text = |column| row.get_ref(column).map_err(StoreError::from)?.as_str().map_err(|error| failed(&error));
    let mut version: Version = serde_json::from_str(text(first)?).map_err(|error| failed(&error))?;
    version.env = sealing::open(vault, version.key(), row.get_ref(first + 1)?)?;
    Ok(version)
}
