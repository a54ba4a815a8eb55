//! A table: its items by primary key, and its indexes, of which the global ones may be behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::key::{Key, Partition, Scalar, Schema};
use super::refusal::{Answer, Refusal};
use super::value::{Attributes, Value, size_of_attributes};

/// Bytes of one item.
pub const ITEM_BYTES_MAX: usize = 400 << 10;

#[derive(Debug)]
pub struct Item {
    pub attributes: Attributes,
    pub size: usize,
}

/// Where a row stands in its partition: by sort key, and in an index by primary key, as several may share the sort key.
pub type Position = (Option<Scalar>, Tie);

/// Rows of a table stand first; the last is where none stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tie {
    First,
    Key(Key),
    Last,
}

pub type Rows = BTreeMap<Position, Arc<Item>>;
pub type Partitions = BTreeMap<Partition, Rows>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Projection {
    pub projection_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_key_attributes: Vec<String>,
}

pub struct Index {
    pub name: String,
    pub global: bool,
    pub schema: Schema,
    pub projection: Projection,
    /// What it holds of an item; all if none.
    pub held: Option<BTreeSet<String>>,
    pub rows: Partitions,
}

/// One write, which a global index will follow.
struct Change {
    at: Instant,
    before: Option<Arc<Item>>,
    after: Option<Arc<Item>>,
}

pub struct Table {
    pub name: String,
    pub id: u64,
    pub schema: Schema,
    /// Types by name, as they were declared.
    pub declared: Vec<(String, String)>,
    pub indexes: Vec<Index>,
    pub rows: Partitions,
    pub count: usize,
    pub expiry: Option<String>,
    pub created: f64,
    pub active_at: Instant,
    pub index_lag: Duration,
    behind: VecDeque<Change>,
}

impl Table {
    pub fn new(name: String, id: u64, schema: Schema, indexes: Vec<Index>, created: f64) -> Self {
        Self {
            name,
            id,
            schema,
            declared: Vec::new(),
            indexes,
            rows: Partitions::new(),
            count: 0,
            expiry: None,
            created,
            active_at: Instant::now(),
            index_lag: Duration::ZERO,
            behind: VecDeque::new(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Item>> {
        self.rows.get(&Partition::of(key.0.clone()))?.get(&(key.1.clone(), Tie::First))
    }

    /// Puts the item, or deletes it if there is none, and says what was there.
    pub fn replace(&mut self, key: &Key, item: Option<Arc<Item>>) -> Option<Arc<Item>> {
        let partition = Partition::of(key.0.clone());
        let position = (key.1.clone(), Tie::First);
        let before = match &item {
            Some(item) => self.rows.entry(partition).or_default().insert(position, item.clone()),
            None => remove(&mut self.rows, &partition, &position),
        };
        self.count = self.count + usize::from(item.is_some()) - usize::from(before.is_some());
        for index in self.indexes.iter_mut().filter(|index| !index.global) {
            index.follow(key, before.as_deref(), item.as_ref());
        }
        if self.indexes.iter().any(|index| index.global) {
            self.behind.push_back(Change { at: Instant::now(), before: before.clone(), after: item });
            self.catch_up();
        }
        before
    }

    /// Lets the global indexes follow what is older than their lag.
    pub fn catch_up(&mut self) {
        while self.behind.front().is_some_and(|change| change.at.elapsed() >= self.index_lag) {
            let Some(Change { before, after, .. }) = self.behind.pop_front() else { return };
            let Some(some) = after.as_ref().or(before.as_ref()) else { continue };
            let Ok(key) = self.schema.key_of_item(&some.attributes) else { continue };
            for index in self.indexes.iter_mut().filter(|index| index.global) {
                index.follow(&key, before.as_deref(), after.as_ref());
            }
        }
    }

    pub fn index(&self, name: &str) -> Answer<&Index> {
        self.indexes
            .iter()
            .find(|index| index.name == name)
            .ok_or_else(|| Refusal::validation(format!("The table does not have the specified index: {name}")))
    }

    /// An item that may be written here, with its key.
    pub fn accept(&self, attributes: Attributes, updated: bool) -> Answer<(Key, Arc<Item>)> {
        attributes.values().try_for_each(Value::check)?;
        let key = self.schema.key_of_item(&attributes)?;
        self.indexes.iter().try_for_each(|index| index.schema.check_index(&index.name, &attributes))?;
        let size = size_of_attributes(&attributes);
        if size > ITEM_BYTES_MAX {
            let what = if updated { "Item size to update" } else { "Item size" };
            return Err(Refusal::validation(format!("{what} has exceeded the maximum allowed size")));
        }
        Ok((key, Arc::new(Item { attributes, size })))
    }

    /// Deletes what expired by then, seconds since 1970, as the service does sometime; how many.
    pub fn sweep(&mut self, now_s: f64) -> usize {
        let Some(attribute) = self.expiry.clone() else { return 0 };
        let is_over = |item: &Item| match item.attributes.get(&attribute) {
            Some(Value::N(at)) => at.as_f64() < now_s,
            _ => false,
        };
        let rows = self.rows.values().flat_map(Rows::values);
        let over: Vec<Key> = rows
            .filter(|item| is_over(item))
            .filter_map(|item| self.schema.key_of_item(&item.attributes).ok())
            .collect();
        over.iter().for_each(|key| drop(self.replace(key, None)));
        over.len()
    }
}

fn remove(partitions: &mut Partitions, partition: &Partition, position: &Position) -> Option<Arc<Item>> {
    let rows = partitions.get_mut(partition)?;
    let removed = rows.remove(position);
    if rows.is_empty() {
        partitions.remove(partition);
    }
    removed
}

impl Index {
    fn follow(&mut self, key: &Key, before: Option<&Item>, after: Option<&Arc<Item>>) {
        let place = |item: &Item| self.schema.place(&item.attributes);
        let (from, to) = (before.and_then(place), after.and_then(|item| place(item)));
        if let Some((partition, sort)) = from
            && Some((&partition, &sort)) != to.as_ref().map(|(partition, sort)| (partition, sort))
        {
            remove(&mut self.rows, &partition, &(sort, Tie::Key(key.clone())));
        }
        if let (Some((partition, sort)), Some(item)) = (to, after) {
            self.rows.entry(partition).or_default().insert((sort, Tie::Key(key.clone())), item.clone());
        }
    }

    /// What of an item is in the index.
    pub fn shown(&self, item: &Attributes) -> Attributes {
        match &self.held {
            None => item.clone(),
            Some(held) => held.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect(),
        }
    }
}
