//! API keys. They are few and every request asks for one, so all of them are in memory as well.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use rusqlite::{Connection, params};

use crate::domain::ids::{KeyId, Owner};
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
    /// In order of creation. Changed by the writer, after the commit.
    known: Arc<RwLock<Vec<Key>>>,
}

impl Keys {
    pub fn new(store: Arc<Store>, known: Vec<Key>) -> Self {
        Self { store, known: Arc::new(RwLock::new(known)) }
    }

    fn with<T>(&self, read: impl FnOnce(&[Key]) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the file, then memory, even when the caller has gone away.
    async fn change<D, M>(&self, decide: D, remember: M) -> Result<bool, StoreError>
    where
        D: Fn(&Connection) -> Result<bool, StoreError> + Send + 'static,
        M: FnOnce(&mut Vec<Key>) + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let known = self.known.clone();
        self.store.submit(decide, move |committed| {
            if let Ok(true) = committed {
                remember(&mut known.write().unwrap_or_else(PoisonError::into_inner));
            }
            let _ = sender.send(committed);
        })?;
        receiver.await.map_err(|_| stopped())?
    }
}

#[async_trait]
impl KeyStore for Keys {
    async fn add(&self, key: &Key) -> Result<(), StoreError> {
        if self.with(<[Key]>::len) >= KEYS_MAX {
            return Err(StoreError::Full(format!("there are {KEYS_MAX} keys: revoke some")));
        }
        let (key, added) = (key.clone(), key.clone());
        self.change(move |connection| insert(connection, &key), |known| known.push(added)).await.map(|_| ())
    }

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(self.with(|known| known.iter().find(|key| key.secret_sha256 == *sha256).cloned()))
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        Ok(self.with(<[Key]>::to_vec))
    }

    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        let decide = move |connection: &Connection| {
            Ok(connection.prepare_cached("DELETE FROM keys WHERE id = ?1")?.execute([id.0.as_bytes()])? > 0)
        };
        self.change(decide, move |known| known.retain(|key| key.id != id)).await
    }
}

/// `false`: it was added before.
fn insert(connection: &Connection, key: &Key) -> Result<bool, StoreError> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut statement = connection.prepare_cached(
        "INSERT INTO keys (id, name, owner, scopes, secret_sha256, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let added = statement.execute(params![
        key.id.0.as_bytes(),
        key.name,
        &*key.owner.0,
        scopes.join(" "),
        key.secret_sha256,
        key.created_at.as_millis() as i64,
    ])?;
    Ok(added > 0)
}

pub(super) fn load(connection: &Connection) -> Result<Vec<Key>, StoreError> {
    let mut statement = connection
        .prepare("SELECT id, name, owner, scopes, secret_sha256, created_at FROM keys ORDER BY created_at, seq")?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let scopes: String = row.get(3)?;
        let scopes = scopes.split(' ').filter(|scope| !scope.is_empty());
        keys.push(Key {
            id: KeyId(uuid::Uuid::from_bytes(row.get(0)?)),
            name: row.get(1)?,
            owner: Owner(row.get(2)?),
            scopes: scopes
                .map(|scope| Scope::parse(scope).ok_or_else(|| damaged("read a key", "it has an unknown scope")))
                .collect::<Result<_, _>>()?,
            secret_sha256: row.get(4)?,
            created_at: Timestamp(row.get(5)?),
        });
    }
    Ok(keys)
}
