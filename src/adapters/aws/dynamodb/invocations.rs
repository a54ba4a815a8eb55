//! Invocation records and idempotency keys.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use sha2::{Digest as _, Sha256};

use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::{Mode, StoredRecord};
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};

use super::behind::{Behind, Sink};
use super::database::{Changed, Database, Expression, key_of};
use super::item::{Attributes, Item, binary, item, number, text, ttl};
use super::listing;
use super::records::{CREATE, FINISH, MAY_START, Records, START, fence, id_of, new_write, waited_for};
use super::tables::{IDEMPOTENCY, INVOCATIONS, Table};

/// How often an idempotency key is looked at anew because somebody else took it meanwhile.
const KEY_TRIES_MAX: u32 = 8;

pub(super) struct Invocations {
    rows: Arc<Rows>,
    behind: Arc<Behind>,
}

/// The records in their table.
pub(super) struct Rows {
    pub database: Arc<Database>,
    pub records: Records,
    pub clock: Arc<dyn Clock>,
}

impl Invocations {
    pub fn new(rows: Arc<Rows>, behind: Arc<Behind>) -> Self {
        Self { rows, behind }
    }
}

#[async_trait]
impl InvocationStore for Invocations {
    async fn create(&self, record: StoredRecord, idempotency: Option<Idempotency>) -> Result<Created, StoreError> {
        let mut write = self.rows.records.write(&record, new_write()).await?;
        let Some(used) = idempotency else {
            // One of the same id stands.
            self.rows.database.put(&INVOCATIONS, write, Some(Expression::new(CREATE, []))).await?;
            return Ok(Created::New);
        };
        if record.mode == Mode::Sync {
            write.extend([waited_for(record.record.request_id)]);
        }
        self.rows.create_once(&record, write, &used).await
    }

    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError> {
        let [_, running, attempt_value] = fence(attempt);
        let worker = (":worker", text(worker.to_string()));
        let change = Expression::new(START, [running, attempt_value, worker, (":started", number(at.as_millis()))]);
        let on = Expression::new(MAY_START, fence(attempt));
        let key = key_of(&INVOCATIONS, id.to_string());
        Ok(self.rows.database.update(&INVOCATIONS, key, change, on).await?.is_some())
    }

    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError> {
        self.behind.settled(record.record.request_id).await?;
        self.rows.finish(&record).await
    }

    fn finish_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        self.behind.push(record)
    }

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError> {
        // Asked first: what is written meanwhile is in the table then.
        let pending = self.behind.pending(id);
        let now = self.rows.clock.now();
        let item = self.rows.database.get(&INVOCATIONS, key_of(&INVOCATIONS, id.to_string())).await?;
        let row = item.map(|item| self.rows.records.read(item, now)).transpose()?.flatten();
        Ok(match (row, pending) {
            (Some(row), _) if row.is_over(now) => Lookup::Expired { function: row.function, owner: row.owner },
            (Some(row), Some(pending)) if row.gives_way_to(&pending) => Lookup::Found(pending),
            (Some(row), _) => Lookup::Found(Arc::new(self.rows.records.whole(row).await?)),
            (None, Some(pending)) => Lookup::Found(pending),
            (None, None) => Lookup::Unknown,
        })
    }

    async fn list(&self, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
        listing::list(&self.rows, query).await
    }

    async fn waited_for(&self, until: Timestamp, max: usize) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
        listing::waited_for(&self.rows, until, max).await
    }
}

#[async_trait]
impl Sink for Rows {
    async fn finish(&self, record: &StoredRecord) -> Result<bool, StoreError> {
        let write = new_write();
        let (item, on) = (self.records.write(record, write).await?, fence(record.record.attempt));
        match self.database.put(&INVOCATIONS, item, Some(Expression::new(FINISH, on))).await? {
            Changed::Done => Ok(true),
            // A try whose answer was lost had written it.
            Changed::Refused(stands) => {
                Ok(stands.is_some_and(|stands| stands.maybe_binary("write") == Some(write.as_slice())))
            }
        }
    }
}

impl Rows {
    /// Record and key in one transaction: both or neither.
    async fn create_once(&self, record: &StoredRecord, write: Item, used: &Idempotency) -> Result<Created, StoreError> {
        let now = self.clock.now();
        let key = item([
            ("key", Some(text(key_of_use(used)))),
            ("request", Some(binary(used.request.0))),
            ("invocation", Some(text(record.record.request_id.to_string()))),
            ("ttl", Some(ttl(self.records.gone(now)))),
        ]);
        let mut in_place_of = None;
        for _ in 0..KEY_TRIES_MAX {
            let on_key = match &in_place_of {
                None => Expression::new("attribute_not_exists(#key)", []),
                Some(earlier) => {
                    let values = [(":earlier", text(InvocationId::to_string(earlier)))];
                    Expression::new("attribute_not_exists(#key) OR #invocation = :earlier", values)
                }
            };
            let parts = vec![
                self.put_part(&IDEMPOTENCY, key.clone(), on_key.clone())?,
                self.put_part(&INVOCATIONS, write.clone(), Expression::new(CREATE, []))?,
            ];
            let Err(refused) = self.database.transact(parts).await? else { return Ok(Created::New) };
            match refused.into_iter().next().flatten() {
                // A record of the same id stands, and the key is free: it stands for that one.
                None => {
                    if let Changed::Done = self.database.put(&IDEMPOTENCY, key.clone(), Some(on_key)).await? {
                        return Ok(Created::New);
                    }
                }
                Some(earlier) if self.is_alive(&earlier, now).await? => {
                    let is_same = earlier.binary("request")? == used.request.0;
                    return Ok(if is_same { Created::Existing(id_of(&earlier)?) } else { Created::KeyReused });
                }
                Some(earlier) => in_place_of = Some(id_of(&earlier)?),
            }
        }
        Err(StoreError::Unavailable("others keep taking this Idempotency-Key".to_owned()))
    }

    /// A key lives as long as the result that it would answer with.
    async fn is_alive(&self, key: &Item, now: Timestamp) -> Result<bool, StoreError> {
        let id = id_of(key)?.to_string();
        let Some(item) = self.database.get(&INVOCATIONS, key_of(&INVOCATIONS, id)).await? else { return Ok(false) };
        Ok(self.records.read(item, now)?.is_some_and(|row| !row.is_over(now)))
    }

    fn put_part(&self, table: &Table, item: Item, on: Expression) -> Result<TransactWriteItem, StoreError> {
        put_part(&self.database, table, item, on)
    }
}

/// A conditional put as part of a transaction.
pub(super) fn put_part(
    database: &Database,
    table: &Table,
    item: Item,
    on: Expression,
) -> Result<TransactWriteItem, StoreError> {
    let put = Put::builder()
        .table_name(database.name(table))
        .set_item(Some(item))
        .condition_expression(on.text)
        .set_expression_attribute_names(on.names())
        .set_expression_attribute_values(on.values())
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|error| StoreError::Unavailable(format!("make a transaction: {error}")))?;
    Ok(TransactWriteItem::builder().put(put).build())
}

/// A digest, so that no two of owner, function and key can be taken for others that read the same together.
fn key_of_use(used: &Idempotency) -> String {
    let mut hash = Sha256::new();
    for part in [used.owner.0.as_bytes(), used.function.0.as_bytes(), used.key.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
