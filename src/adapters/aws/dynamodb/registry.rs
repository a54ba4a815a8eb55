//! Functions, their names and their versions. A change is one transaction over all items that it touches.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Delete, TransactWriteItem, Update};
use futures_util::{StreamExt, stream};

use crate::adapters::sealed_env;
use crate::domain::env::Env;
use crate::domain::function::{Function, Version, name_is_valid};
use crate::domain::ids::{FunctionId, Owner, VersionKey};
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::registry::{Registry, RegistryError};
use crate::ports::vault::Vault;

use super::database::{AT_ONCE, Answer, Database, Expression, Query, key_in, names_of, values_of};
use super::invocations::put_part;
use super::item::{Attributes, Item, binary, damaged, item, number, text, ttl};
use super::tables::{BY_NAME, FUNCTIONS};

/// Functions, or versions, on one page.
const PAGE_MAX: usize = 1000;

const NEW: &str = "attribute_not_exists(#pk)";
const IS_THERE: &str = "attribute_exists(#pk) AND attribute_not_exists(#deleted)";
const FUNCTION: &str = "-";
const COUNT: &str = "count";
const EVERYBODY: &str = "everybody";
/// Above every character of a name, and below.
const LAST: char = '~';
const FIRST: char = ' ';

pub(super) struct Functions {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    vault: Arc<dyn Vault>,
    logs_ms: u64,
}

impl Functions {
    pub fn new(database: Arc<Database>, clock: Arc<dyn Clock>, vault: Arc<dyn Vault>, logs_s: u64) -> Self {
        Self { database, clock, vault, logs_ms: logs_s.saturating_mul(1000) }
    }

    fn put(&self, item: Item) -> Result<TransactWriteItem, StoreError> {
        put_part(&self.database, &FUNCTIONS, item, Expression::new(NEW, []))
    }

    /// A change to an item, as part of a transaction.
    fn change(&self, key: Item, change: Expression, on: Option<Expression>) -> Result<TransactWriteItem, StoreError> {
        let none = Expression::new("", []);
        let condition = on.as_ref().unwrap_or(&none);
        let update = Update::builder()
            .table_name(self.database.name(&FUNCTIONS))
            .set_key(Some(key))
            .update_expression(change.text)
            .set_condition_expression(on.as_ref().map(|on| on.text.to_owned()))
            .set_expression_attribute_names(names_of([change.text, condition.text]))
            .set_expression_attribute_values(values_of([&change, condition]))
            .build();
        let update = update.map_err(|error| StoreError::Unavailable(format!("make a transaction: {error}")))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn count_by(&self, owner: &Owner, by: i32) -> Result<TransactWriteItem, StoreError> {
        let key = key_in(&FUNCTIONS, COUNT, &*owner.0);
        self.change(key, Expression::new("ADD #functions :by", [(":by", number(by))]), None)
    }

    fn version_item(&self, version: &Version) -> Result<Item, StoreError> {
        let env = sealed_env::seal(self.vault.as_ref(), version.key(), &version.env)?;
        let version = Version { env: Env::default(), ..version.clone() };
        let body = serde_json::to_string(&version).map_err(|error| damaged("write a version", error))?;
        let mut item = version_key(version.key());
        item.extend([("body".to_owned(), text(body)), ("env".to_owned(), binary(env))]);
        Ok(item)
    }

    fn read_version(&self, item: &Item) -> Result<Arc<Version>, StoreError> {
        let mut version: Version =
            serde_json::from_str(item.text("body")?).map_err(|error| damaged("read a version", error))?;
        version.env = sealed_env::open(self.vault.as_ref(), version.key(), item.binary("env")?)?;
        Ok(Arc::new(version))
    }

    /// Versions of a function that is gone are to go as well. What can't be marked stays, unseen.
    async fn age_versions(&self, id: FunctionId, gone: Timestamp) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let query = Query { from, between: versions_range(), ..Query::new(&FUNCTIONS, partition(id)) };
            let Answer { items, next, .. } = self.database.query(query).await?;
            let marked = items.iter().filter_map(|item| item.maybe_text("sk")).map(|version| {
                let change = Expression::new("SET #ttl = :ttl", [(":ttl", ttl(gone))]);
                let on = Expression::new("attribute_exists(#pk)", []);
                self.database.update(&FUNCTIONS, key_in(&FUNCTIONS, partition(id), version), change, on)
            });
            let mut marked = stream::iter(marked.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
            while let Some(one) = marked.next().await {
                one?;
            }
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }
}

fn partition(id: FunctionId) -> String {
    format!("f#{id}")
}

fn function_key(id: FunctionId) -> Item {
    key_in(&FUNCTIONS, partition(id), FUNCTION)
}

fn version_key(key: VersionKey) -> Item {
    key_in(&FUNCTIONS, partition(key.function), format!("v#{:010}", key.number))
}

fn versions_range() -> Option<(String, String)> {
    Some(("v#".to_owned(), format!("v#{LAST}")))
}

fn names_of_owner(owner: &Owner) -> String {
    format!("n#{owner}")
}

fn name_key(function: &Function) -> Item {
    key_in(&FUNCTIONS, names_of_owner(&function.owner), &*function.name)
}

/// What a function's own item and its name's have in common.
fn function_attributes(function: &Function) -> Item {
    item([
        ("id", Some(text(function.id.to_string()))),
        ("owner", Some(text(&*function.owner.0))),
        ("name", Some(text(&*function.name))),
        ("current", Some(number(function.current))),
        ("created", Some(number(function.created_at.as_millis()))),
        ("updated", Some(number(function.updated_at.as_millis()))),
    ])
}

pub(super) fn read_function(item: &Item) -> Result<Function, StoreError> {
    Ok(Function {
        id: item.parsed("id")?,
        owner: Owner::new(item.text("owner")?),
        name: item.text("name")?.into(),
        current: item.small("current")?,
        created_at: item.time("created")?,
        updated_at: item.time("updated")?,
    })
}

/// Those of `ids` that still are.
pub(super) async fn living(database: &Database, ids: Vec<FunctionId>) -> Result<Vec<Function>, StoreError> {
    let found = database.get_all(&FUNCTIONS, ids.into_iter().map(function_key).collect()).await?;
    found.iter().filter(|item| !item.contains_key("deleted")).map(read_function).collect()
}

/// The place of a function among everybody's: by name, then by id.
fn place(name: &str, id: FunctionId) -> String {
    format!("{name}{FIRST}{id}")
}

fn encode_cursor(function: &Function) -> String {
    hex::encode(place(&function.name, function.id))
}

fn decode_cursor(cursor: Option<&str>) -> Result<Option<(String, FunctionId)>, StoreError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = hex::decode(cursor).map_err(|_| StoreError::InvalidCursor)?;
    let text = String::from_utf8(bytes).map_err(|_| StoreError::InvalidCursor)?;
    let (name, id) = text.split_once(FIRST).ok_or(StoreError::InvalidCursor)?;
    Ok(Some((name.to_owned(), id.parse().map_err(|_| StoreError::InvalidCursor)?)))
}

#[async_trait]
impl Registry for Functions {
    async fn create(&self, function: &Function, version: &Version) -> Result<(), RegistryError> {
        let attributes = function_attributes(&Function { current: version.number, ..function.clone() });
        let mut named = name_key(function);
        named.extend(attributes.clone());
        named.insert(BY_NAME.hash.to_owned(), text(EVERYBODY));
        named.insert(BY_NAME.range.to_owned(), text(place(&function.name, function.id)));
        let mut own = function_key(function.id);
        own.extend(attributes);
        let parts = vec![
            self.put(named)?,
            self.put(own)?,
            self.put(self.version_item(version)?)?,
            self.count_by(&function.owner, 1)?,
        ];
        match self.database.transact(parts).await? {
            Ok(()) => Ok(()),
            Err(refused) if refused.first().is_some_and(Option::is_some) => Err(RegistryError::NameTaken),
            Err(_) => Err(StoreError::Corrupt(format!("function {} is there under another name", function.id)).into()),
        }
    }

    async fn publish(&self, version: &Version) -> Result<Function, RegistryError> {
        let mut function = self.function(version.function_id).await?.ok_or(RegistryError::NotFound)?;
        if function.current.checked_add(1) != Some(version.number) {
            return Err(RegistryError::Conflict);
        }
        let before = function.current;
        (function.current, function.updated_at) = (version.number, version.created_at);
        let set = || {
            let updated = (":updated", number(function.updated_at.as_millis()));
            let current = (":current", number(function.current));
            Expression::new("SET #current = :current, #updated = :updated", [current, updated])
        };
        let is_current =
            Expression::new("attribute_not_exists(#deleted) AND #current = :before", [(":before", number(before))]);
        let is_its = Expression::new("#id = :id", [(":id", text(function.id.to_string()))]);
        let parts = vec![
            self.change(function_key(function.id), set(), Some(is_current))?,
            self.change(name_key(&function), set(), Some(is_its))?,
            self.put(self.version_item(version)?)?,
        ];
        match self.database.transact(parts).await? {
            Ok(()) => Ok(function),
            Err(_) if self.function(version.function_id).await?.is_none() => Err(RegistryError::NotFound),
            Err(_) => Err(RegistryError::Conflict),
        }
    }

    async fn function(&self, id: FunctionId) -> Result<Option<Function>, StoreError> {
        let found = self.database.get(&FUNCTIONS, function_key(id)).await?;
        found.filter(|item| !item.contains_key("deleted")).map(|item| read_function(&item)).transpose()
    }

    async fn function_named(&self, owner: &Owner, name: &str) -> Result<Option<Function>, StoreError> {
        // What can't be a name is none; DynamoDB would refuse an empty key, or one of a kilobyte.
        if !name_is_valid(name) {
            return Ok(None);
        }
        let found = self.database.get(&FUNCTIONS, key_in(&FUNCTIONS, names_of_owner(owner), name)).await?;
        found.map(|item| read_function(&item)).transpose()
    }

    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError> {
        let found = self.database.get(&FUNCTIONS, version_key(key)).await?;
        found.map(|item| self.read_version(&item)).transpose()
    }

    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<(Function, Arc<Version>)>, StoreError> {
        let (after, limit) = (decode_cursor(cursor)?, limit.clamp(1, PAGE_MAX));
        let (index, hash) = match owner {
            Some(owner) => (None, names_of_owner(owner)),
            None => (Some(&BY_NAME), EVERYBODY.to_owned()),
        };
        // Right behind it: no character of a name or an id is as low as the one added.
        let low = after.map_or(FIRST.to_string(), |(name, id)| match owner {
            Some(_) => format!("{name}{FIRST}"),
            None => format!("{}{FIRST}", place(&name, id)),
        });
        let (mut functions, mut from) = (Vec::new(), None);
        loop {
            let between = Some((low.clone(), LAST.to_string()));
            let step = limit + 1 - functions.len();
            let answer = self
                .database
                .query(Query { index, between, limit: step, from, ..Query::new(&FUNCTIONS, &*hash) })
                .await?;
            for item in &answer.items {
                functions.push(read_function(item)?);
            }
            from = answer.next;
            if from.is_none() || functions.len() > limit {
                break;
            }
        }
        let more = functions.len() > limit;
        functions.truncate(limit);
        let next_cursor = functions.last().filter(|_| more).map(encode_cursor);
        let keys = functions
            .iter()
            .map(|function| version_key(VersionKey { function: function.id, number: function.current }));
        let found = self.database.get_all(&FUNCTIONS, keys.collect()).await?;
        let versions: Vec<_> = found.iter().map(|item| self.read_version(item)).collect::<Result<_, _>>()?;
        let mut versions: std::collections::HashMap<_, _> =
            versions.into_iter().map(|version| (version.function_id, version)).collect();
        let whole = |function: Function| versions.remove(&function.id).map(|version| (function, version));
        Ok(Page { items: functions.into_iter().filter_map(whole).collect(), next_cursor })
    }

    async fn count(&self, owner: Option<&Owner>) -> Result<u64, StoreError> {
        let of = |item: &Item| item.maybe_number("functions").unwrap_or_default();
        match owner {
            Some(owner) => {
                let found = self.database.get(&FUNCTIONS, key_in(&FUNCTIONS, COUNT, &*owner.0)).await?;
                Ok(found.as_ref().map_or(0, of))
            }
            None => Ok(self.database.query_all(&FUNCTIONS, COUNT).await?.iter().map(of).sum()),
        }
    }

    async fn versions(&self, id: FunctionId, limit: usize) -> Result<Vec<Arc<Version>>, StoreError> {
        let (limit, mut from) = (limit.clamp(1, PAGE_MAX), None);
        let mut versions = Vec::new();
        loop {
            let step = limit - versions.len();
            let query = Query {
                newest_first: true,
                between: versions_range(),
                limit: step,
                from,
                ..Query::new(&FUNCTIONS, partition(id))
            };
            let answer = self.database.query(query).await?;
            for item in &answer.items {
                versions.push(self.read_version(item)?);
            }
            from = answer.next;
            if from.is_none() || versions.len() >= limit {
                return Ok(versions);
            }
        }
    }

    async fn delete(&self, id: FunctionId) -> Result<(), RegistryError> {
        let function = self.function(id).await?.ok_or(RegistryError::NotFound)?;
        let now = self.clock.now();
        let gone = Timestamp(now.as_millis().saturating_add(self.logs_ms));
        let mark = Expression::new(
            "SET #deleted = :now, #ttl = :ttl",
            [(":now", number(now.as_millis())), (":ttl", ttl(gone))],
        );
        let is_its = Expression::new("#id = :id", [(":id", text(id.to_string()))]);
        let unnamed = Delete::builder()
            .table_name(self.database.name(&FUNCTIONS))
            .set_key(Some(name_key(&function)))
            .condition_expression(is_its.text)
            .set_expression_attribute_names(is_its.names())
            .set_expression_attribute_values(is_its.values())
            .build()
            .map_err(|error| StoreError::Unavailable(format!("make a transaction: {error}")))?;
        let parts = vec![
            self.change(function_key(id), mark, Some(Expression::new(IS_THERE, [])))?,
            TransactWriteItem::builder().delete(unnamed).build(),
            self.count_by(&function.owner, -1)?,
        ];
        self.database.transact(parts).await?.map_err(|_| RegistryError::NotFound)?;
        if let Err(error) = self.age_versions(id, gone).await {
            tracing::warn!(function = %id, %error, "versions of a deleted function could not be marked to go");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_what_it_writes_and_nothing_else() {
        let id = FunctionId(uuid::Uuid::new_v4());
        let at = Timestamp(1);
        let function = Function {
            id,
            owner: Owner::new("ann"),
            name: "hello-world".into(),
            current: 1,
            created_at: at,
            updated_at: at,
        };
        let read = decode_cursor(Some(&encode_cursor(&function))).unwrap();
        assert_eq!(read, Some(("hello-world".to_owned(), id)));
        for wrong in ["", "zz", "abcd", "0", &"ff".repeat(20)] {
            assert!(matches!(decode_cursor(Some(wrong)), Err(StoreError::InvalidCursor)), "{wrong}");
        }
    }

    #[test]
    fn a_name_comes_before_every_longer_one() {
        let id = FunctionId(uuid::Uuid::max());
        assert!(place("f", id) < place("f-1", FunctionId(uuid::Uuid::nil())));
        assert!(format!("{}{FIRST}", place("f", id)) < place("f-", FunctionId(uuid::Uuid::nil())));
    }
}
