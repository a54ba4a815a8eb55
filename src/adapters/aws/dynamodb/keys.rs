//! API keys: each twice, by id for who lists and revokes them, by the digest of its secret for who shows one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Delete, TransactWriteItem};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::domain::ids::{FunctionId, KeyId, Owner};
use crate::domain::key::{Key, Scope};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::keys::KeyStore;

use super::database::{AT_ONCE, Database, Expression, Query, key_in};
use super::invocations::put_part;
use super::item::{Attributes, Item, damaged, item, number, text};
use super::tables::KEYS;

/// Beyond it no key can be added. Every start and every list reads them all.
const KEYS_MAX: u64 = 10_000;
/// Uses that wait to be noted; more go unnoted.
const USES_MAX: usize = 1024;
/// How long a use waits for others.
const LINGER: Duration = Duration::from_secs(1);

const NEW: &str = "attribute_not_exists(#pk)";
const ALL: &str = "key";
const ALONE: &str = "-";

pub(super) struct Keys {
    notes: Arc<Notes>,
}

/// Which keys were used when, until it is written.
struct Notes {
    database: Arc<Database>,
    waiting: Mutex<HashMap<KeyId, Timestamp>>,
    /// Held while they are written, so that whoever comes next finds them written.
    writing: tokio::sync::Mutex<()>,
}

impl Keys {
    pub fn new(database: Arc<Database>) -> Self {
        let writing = tokio::sync::Mutex::new(());
        Self { notes: Arc::new(Notes { database, waiting: Mutex::default(), writing }) }
    }

    fn database(&self) -> &Database {
        &self.notes.database
    }

    /// All items of one key: it, it by its secret, and whose access key it is.
    fn parts(&self, key: &Key) -> Result<Vec<TransactWriteItem>, StoreError> {
        let place = |pk: String, sk: String, more: Item| {
            let mut item = key_in(&KEYS, pk, sk);
            item.extend(more);
            put_part(self.database(), &KEYS, item, Expression::new(NEW, []))
        };
        let (id, all) = (key.id.to_string(), attributes(key));
        let mut parts = vec![
            place(ALL.to_owned(), id.clone(), all.clone())?,
            place(by_secret(&key.secret_sha256), ALONE.to_owned(), all)?,
        ];
        if let Some(function) = key.function {
            parts.push(place(of_function(function), id, Item::new())?);
        }
        Ok(parts)
    }

    fn delete(&self, key: Item, on: Option<&'static str>) -> Result<TransactWriteItem, StoreError> {
        let delete = Delete::builder()
            .table_name(self.database().name(&KEYS))
            .set_key(Some(key))
            .set_condition_expression(on.map(ToOwned::to_owned))
            .set_expression_attribute_names(on.and_then(|on| Expression::new(on, []).names()))
            .build();
        let delete = delete.map_err(|error| StoreError::Unavailable(format!("make a transaction: {error}")))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    async fn are_there_any(&self) -> Result<bool, StoreError> {
        let answer = self.database().query(Query { limit: 1, ..Query::new(&KEYS, ALL) }).await?;
        Ok(!answer.items.is_empty())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let (mut count, mut from) = (0, None);
        loop {
            let answer = self.database().query(Query { count: true, from, ..Query::new(&KEYS, ALL) }).await?;
            count += answer.count;
            from = answer.next;
            if from.is_none() {
                return Ok(count);
            }
        }
    }

    /// Writes what was noted: for the end of the process.
    pub async fn flush(&self) {
        self.notes.write().await;
    }
}

impl Notes {
    async fn write(&self) {
        let _writing = self.writing.lock().await;
        let uses = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let written = stream::iter(uses).map(|(id, at)| self.note(id, at)).buffer_unordered(AT_ONCE);
        let failed = written.filter_map(async |written| written.err()).collect::<Vec<_>>().await;
        if let Some(error) = failed.first() {
            tracing::debug!(%error, keys = failed.len(), "uses of keys go unnoted");
        }
    }

    async fn note(&self, id: KeyId, at: Timestamp) -> Result<(), StoreError> {
        let change = || Expression::new("SET #used = :used", [(":used", number(at.as_millis()))]);
        let on = || Expression::new("attribute_exists(#pk)", []);
        let key = key_in(&KEYS, ALL, id.to_string());
        // One that is gone stays gone.
        let Some(key) = self.database.update(&KEYS, key, change(), on()).await? else { return Ok(()) };
        let by_secret = key_in(&KEYS, by_secret(&sha256(&key)?), ALONE);
        self.database.update(&KEYS, by_secret, change(), on()).await.map(|_| ())
    }
}

#[async_trait]
impl KeyStore for Keys {
    async fn add(&self, key: &Key) -> Result<(), StoreError> {
        if self.count().await? >= KEYS_MAX {
            return Err(StoreError::Full(format!("there are {KEYS_MAX} keys: revoke some")));
        }
        match self.database().transact(self.parts(key)?).await? {
            Ok(()) => Ok(()),
            // Added before.
            Err(refused) if refused.first().is_some_and(Option::is_some) => Ok(()),
            Err(_) => Err(StoreError::Corrupt("another key has the same secret".to_owned())),
        }
    }

    async fn add_first(&self, key: &Key) -> Result<bool, StoreError> {
        let first = key_in(&KEYS, "first", ALONE);
        // Read before the keys: whoever makes one meanwhile changes it.
        let before = self.database().get(&KEYS, first.clone()).await?;
        if self.are_there_any().await? {
            return Ok(false);
        }
        // There was one, and every key since was revoked: this one is the first again.
        let on = match before.as_ref().map(|before| before.text("id")).transpose()? {
            Some(id) => Expression::new("#id = :before", [(":before", text(id))]),
            None => Expression::new(NEW, []),
        };
        let mut mark = first;
        mark.insert("id".to_owned(), text(key.id.to_string()));
        let mut parts = self.parts(key)?;
        parts.push(put_part(self.database(), &KEYS, mark, on)?);
        Ok(self.database().transact(parts).await?.is_ok())
    }

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        let found = self.database().get(&KEYS, key_in(&KEYS, by_secret(sha256), ALONE)).await?;
        found.map(|item| read(&item)).transpose()
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        let found = self.database().query_all(&KEYS, ALL).await?;
        let mut keys = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by_key(|key| (key.created_at, key.id));
        Ok(keys)
    }

    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        self.notes.write().await;
        let own = key_in(&KEYS, ALL, id.to_string());
        let Some(found) = self.database().get(&KEYS, own.clone()).await? else { return Ok(false) };
        let mut parts = vec![
            self.delete(own, Some("attribute_exists(#pk)"))?,
            self.delete(key_in(&KEYS, by_secret(&sha256(&found)?), ALONE), None)?,
        ];
        if let Some(function) = found.maybe_text("function") {
            parts.push(self.delete(key_in(&KEYS, format!("of#{function}"), id.to_string()), None)?);
        }
        Ok(self.database().transact(parts).await?.is_ok())
    }

    async fn revoke_of(&self, function: FunctionId) -> Result<Vec<KeyId>, StoreError> {
        let found = self.database().query_all(&KEYS, &of_function(function)).await?;
        let ids = found.iter().map(|item| item.parsed::<KeyId>("sk")).collect::<Result<Vec<_>, _>>()?;
        let revoked: Vec<Option<KeyId>> = stream::iter(ids)
            .map(async |id| Ok::<_, StoreError>(self.revoke(id).await?.then_some(id)))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(revoked.into_iter().flatten().collect())
    }

    fn used(&self, id: KeyId, at: Timestamp) {
        let mut waiting = self.notes.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.is_empty();
        if waiting.len() < USES_MAX {
            waiting.insert(id, at);
        }
        if is_first {
            let notes = self.notes.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                notes.write().await;
            });
        }
    }
}

fn by_secret(sha256: &[u8; 32]) -> String {
    format!("secret#{}", hex::encode(sha256))
}

fn of_function(function: FunctionId) -> String {
    format!("of#{function}")
}

fn sha256(item: &Item) -> Result<[u8; 32], StoreError> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(item.text("sha256")?, &mut sha256).map_err(|error| damaged("read a key", error))?;
    Ok(sha256)
}

fn attributes(key: &Key) -> Item {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let time = |at: Timestamp| number(at.as_millis());
    item([
        ("id", Some(text(key.id.to_string()))),
        ("name", Some(text(&*key.name))),
        ("description", Some(text(&*key.description))),
        ("owner", Some(text(&*key.owner.0))),
        ("scopes", Some(text(scopes.join(" ")))),
        ("function", key.function.map(|function| text(function.to_string()))),
        ("sha256", Some(text(hex::encode(key.secret_sha256)))),
        ("created", Some(time(key.created_at))),
        ("expires", key.expires_at.map(time)),
        ("used", key.last_used_at.map(time)),
    ])
}

fn read(item: &Item) -> Result<Key, StoreError> {
    let scopes = item.text("scopes")?.split(' ').filter(|scope| !scope.is_empty());
    let time = |name| item.maybe_number(name).map(Timestamp);
    Ok(Key {
        id: item.parsed("id")?,
        name: item.text("name")?.to_owned(),
        description: item.text("description")?.to_owned(),
        owner: Owner::new(item.text("owner")?),
        scopes: scopes
            .map(|scope| Scope::parse(scope).ok_or_else(|| damaged("read a key", "it has an unknown scope")))
            .collect::<Result<_, _>>()?,
        function: item.maybe_text("function").map(|_| item.parsed("function")).transpose()?,
        secret_sha256: sha256(item)?,
        created_at: item.time("created")?,
        expires_at: time("expires"),
        last_used_at: time("used"),
    })
}
