//! API keys. They are few and every request asks for one, so all of them are in memory as well.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use rusqlite::{Connection, params};

use crate::domain::ids::{FunctionId, KeyId, Owner};
use crate::domain::key::{Key, Scope};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::keys::KeyStore;

use super::errors::{damaged, stopped};
use super::store::Store;

/// Beyond it no key can be added.
const KEYS_MAX: usize = 10_000;

pub(super) struct Keys {
    store: Arc<Store>,
    /// Changed by the writer, after the commit.
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    /// In order of creation.
    keys: Vec<Key>,
    /// Places in `keys`, by the SHA-256 of the secret: a guess costs one look, however many keys there are.
    by_secret: HashMap<[u8; 32], usize>,
}

impl Known {
    fn new(keys: Vec<Key>) -> Self {
        let by_secret = keys.iter().enumerate().map(|(place, key)| (key.secret_sha256, place)).collect();
        Self { keys, by_secret }
    }

    fn push(&mut self, key: Key) {
        self.by_secret.insert(key.secret_sha256, self.keys.len());
        self.keys.push(key);
    }

    fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let mut keys = std::mem::take(&mut self.keys);
        keys.retain(keep);
        *self = Self::new(keys);
    }
}

impl Keys {
    pub fn new(store: Arc<Store>, known: Vec<Key>) -> Self {
        Self { store, known: Arc::new(RwLock::new(Known::new(known))) }
    }

    fn with<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the file, then memory, even when the caller has gone away.
    async fn change<T, D, M>(&self, decide: D, remember: M) -> Result<T, StoreError>
    where
        T: Send + 'static,
        D: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
        M: FnOnce(&mut Known, &T) + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let known = self.known.clone();
        self.store.submit(decide, move |committed| {
            if let Ok(done) = &committed {
                remember(&mut known.write().unwrap_or_else(PoisonError::into_inner), done);
            }
            let _ = sender.send(committed);
        })?;
        receiver.await.map_err(|_| stopped())?
    }
}

#[async_trait]
impl KeyStore for Keys {
    async fn add(&self, key: &Key) -> Result<(), StoreError> {
        if self.with(|known| known.keys.len()) >= KEYS_MAX {
            return Err(StoreError::Full(format!("there are {KEYS_MAX} keys: revoke some")));
        }
        let (key, added) = (key.clone(), key.clone());
        let remember = |known: &mut Known, is_new: &bool| {
            if *is_new {
                known.push(added);
            }
        };
        self.change(move |connection| insert(connection, &key), remember).await.map(|_| ())
    }

    async fn add_first(&self, key: &Key) -> Result<bool, StoreError> {
        let (key, added) = (key.clone(), key.clone());
        let decide = move |connection: &Connection| {
            let any: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM keys)", [], |row| row.get(0))?;
            if any { Ok(false) } else { insert(connection, &key) }
        };
        let remember = |known: &mut Known, is_new: &bool| {
            if *is_new {
                known.push(added);
            }
        };
        self.change(decide, remember).await
    }

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(self.with(|known| known.by_secret.get(sha256).and_then(|place| known.keys.get(*place)).cloned()))
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        Ok(self.with(|known| known.keys.clone()))
    }

    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        let decide = move |connection: &Connection| {
            Ok(connection.prepare_cached("DELETE FROM keys WHERE id = ?1")?.execute([id.0.as_bytes()])? > 0)
        };
        let forget = move |known: &mut Known, revoked: &bool| {
            if *revoked {
                known.retain(|key| key.id != id);
            }
        };
        self.change(decide, forget).await
    }

    async fn revoke_of(&self, function: FunctionId) -> Result<Vec<KeyId>, StoreError> {
        let decide = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("DELETE FROM keys WHERE function = ?1 RETURNING id")?;
            let ids = statement.query_map([function.0.as_bytes()], |row| row.get(0).map(uuid::Uuid::from_bytes))?;
            Ok(ids.map(|id| id.map(KeyId)).collect::<Result<Vec<_>, _>>()?)
        };
        let forget = move |known: &mut Known, revoked: &Vec<KeyId>| {
            if !revoked.is_empty() {
                known.retain(|key| key.function != Some(function));
            }
        };
        self.change(decide, forget).await
    }

    fn used(&self, id: KeyId, at: Timestamp) {
        let known = self.known.clone();
        let decide = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("UPDATE keys SET last_used_at = ?2 WHERE id = ?1")?;
            Ok(statement.execute(params![id.0.as_bytes(), at.as_millis() as i64])?)
        };
        let remember = move |written: Result<usize, StoreError>| {
            let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
            if let (Ok(1..), Some(key)) = (written, known.keys.iter_mut().find(|key| key.id == id)) {
                key.last_used_at = Some(at);
            }
        };
        // Full or closed: this use goes unnoted.
        let _ = self.store.submit(decide, remember);
    }
}

/// `false`: it was added before.
fn insert(connection: &Connection, key: &Key) -> Result<bool, StoreError> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut statement = connection.prepare_cached(
        "INSERT INTO keys (id, name, owner, scopes, secret_sha256, created_at, description, function, expires_at, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
    )?;
    let added = statement.execute(params![
        key.id.0.as_bytes(),
        key.name,
        &*key.owner.0,
        scopes.join(" "),
        key.secret_sha256,
        key.created_at.as_millis() as i64,
        key.description,
        key.function.as_ref().map(|function| function.0.as_bytes()),
        key.expires_at.map(|at| at.as_millis() as i64),
        key.last_used_at.map(|at| at.as_millis() as i64),
    ])?;
    Ok(added > 0)
}

/// Every key. Access keys whose function is gone, because the last run ended between the two deletions, go as well.
pub(super) fn load(connection: &Connection) -> Result<Vec<Key>, StoreError> {
    connection.execute(
        "DELETE FROM keys WHERE function IS NOT NULL
           AND function NOT IN (SELECT id FROM functions WHERE deleted_at IS NULL)",
        [],
    )?;
    let mut statement = connection.prepare(
        "SELECT id, name, owner, scopes, secret_sha256, created_at, description, function, expires_at, last_used_at
         FROM keys ORDER BY created_at, seq",
    )?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let scopes: String = row.get(3)?;
        let scopes = scopes.split(' ').filter(|scope| !scope.is_empty());
        let time = |column| row.get::<_, Option<u64>>(column).map(|at| at.map(Timestamp));
        keys.push(Key {
            id: KeyId(uuid::Uuid::from_bytes(row.get(0)?)),
            name: row.get(1)?,
            description: row.get(6)?,
            owner: Owner(row.get(2)?),
            scopes: scopes
                .map(|scope| Scope::parse(scope).ok_or_else(|| damaged("read a key", "it has an unknown scope")))
                .collect::<Result<_, _>>()?,
            function: row.get::<_, Option<[u8; 16]>>(7)?.map(|id| FunctionId(uuid::Uuid::from_bytes(id))),
            secret_sha256: row.get(4)?,
            created_at: Timestamp(row.get(5)?),
            expires_at: time(8)?,
            last_used_at: time(9)?,
        });
    }
    Ok(keys)
}
