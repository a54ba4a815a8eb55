//! Invocation records as items: how they are written, and how they are read back.
//!
//! A record that is too large for an item, or dear in one, lies among the artifacts, and its item says where. The index attributes
//! are set so that a call that succeeds comes into three indexes and one that is accepted and then succeeds into four. A small record
//! is kept below the kilobyte that a write unit pays for: what can be told from something else is not written twice.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::config::Retention;
use crate::domain::ids::{FunctionId, InvocationId, Owner, WorkerId};
use crate::domain::invocation::{Mode, Record, StoredRecord};
use crate::domain::outcome::Status;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};

use super::compact::without_nulls;
use super::item::{Attributes, Item, binary, damaged, item, number, take_binary, text, ttl};
use super::walk::{partition, partition_of_all, seq};

/// A record up to this size lies in its item. An item may have 400 KB; but a kilobyte there costs as much as a fifth of an upload of
/// any size, so that beyond some ten of them the upload is cheaper, and this is where waiting for it stops to be worth the difference.
const IN_ITEM_BYTES_MAX: usize = 32 << 10;

/// What stands for every record that is not final, in the index by state.
pub(super) const OPEN: &str = "OPEN";

/// Where open records of synchronous calls with a key are, in the index by failure: a few, so that whoever ends what nobody runs any more
/// needs no index of its own. No function is called so.
pub(super) const WAITED_FOR: &str = "waited-for";

/// What lets a record be found there, until another is written over it.
pub(super) fn waited_for(id: InvocationId) -> (String, AttributeValue) {
    ("of_failure".to_owned(), text(partition(WAITED_FOR, id.0)))
}

/// What the partition of a record in the index by state is named after; `None`: it is not there.
pub(super) fn state(status: Status) -> Option<&'static str> {
    match status {
        Status::Queued | Status::Running => Some(OPEN),
        Status::Success => None,
        Status::Failed | Status::Timeout | Status::Cancelled | Status::Dead => Some(status.as_str()),
    }
}

pub(super) struct Records {
    artifacts: Arc<dyn ArtifactStore>,
    results_ms: u64,
    logs_ms: u64,
}

impl Records {
    pub fn new(artifacts: Arc<dyn ArtifactStore>, retention: &Retention) -> Self {
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        Self { artifacts, results_ms: ms(retention.results_s), logs_ms: ms(retention.logs_s) }
    }

    /// The item, of which `write` names this very writing: so a try whose answer was lost knows itself again.
    pub async fn write(&self, stored: &StoredRecord, write: Write) -> Result<Item, StoreError> {
        let record = &stored.record;
        let json = stored.json().map_err(|error| damaged("write a record", error))?;
        let size = json.len();
        let (body, artifact) = match size {
            0..=IN_ITEM_BYTES_MAX => (Some(binary(without_nulls(&json))), None),
            _ => (None, Some(text(self.artifacts.put(json).await?.to_string()))),
        };
        let (id, state) = (record.request_id.0, state(record.status));
        let failed = state.filter(|_| record.status.is_final());
        let mode = match stored.mode {
            Mode::Sync => "sync",
            Mode::Async => "async",
        };
        Ok(item([
            ("id", Some(text(id.to_string()))),
            ("mode", Some(text(mode))),
            ("status", Some(text(record.status.as_str()))),
            ("attempt", Some(number(record.attempt))),
            ("over", self.result_over(record).map(|at| number(at.as_millis()))),
            ("ttl", Some(ttl(self.gone(record.created_at)))),
            ("write", Some(binary(write))),
            ("size", Some(number(size))),
            ("body", body),
            ("artifact", artifact),
            ("seq", Some(text(seq(record.created_at, id)))),
            ("of_owner", Some(text(partition(&stored.owner, id)))),
            ("of_function", Some(text(partition(record.function_id, id)))),
            ("of_all", Some(text(partition_of_all(id)))),
            ("of_state", state.map(|state| text(partition(format_args!("{}#{state}", stored.owner), id)))),
            ("of_failure", failed.map(|state| text(partition(format_args!("{}#{state}", record.function_id), id)))),
        ]))
    }

    /// Absent while the record is not final.
    fn result_over(&self, record: &Record) -> Option<Timestamp> {
        let finished = record.finished_at.unwrap_or(record.created_at).as_millis();
        record.status.is_final().then(|| Timestamp(finished.saturating_add(self.results_ms)))
    }

    /// When a record created then is no more.
    pub fn gone(&self, created: Timestamp) -> Timestamp {
        Timestamp(created.as_millis().saturating_add(self.logs_ms))
    }

    /// The oldest that still is.
    pub fn oldest(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.as_millis().saturating_sub(self.logs_ms).saturating_add(1))
    }

    pub fn read(&self, item: Item, now: Timestamp) -> Result<Option<Row>, StoreError> {
        let row = Row::read(item)?;
        Ok(Some(row).filter(|row| self.gone(row.created) > now))
    }

    /// The record whole, from its item and, if it is large, from the artifacts.
    pub async fn whole(&self, mut row: Row) -> Result<StoredRecord, StoreError> {
        let failed = |error: &dyn std::fmt::Display| damaged("read a record", error);
        let body: Bytes = match take_binary(&mut row.item, "body") {
            Some(body) => body,
            None => {
                let artifact = self.artifacts.get(row.item.parsed("artifact")?).await;
                artifact.map_err(|error| match error {
                    ArtifactError::NotFound => failed(&"its artifact is gone"),
                    ArtifactError::Store(error) => error,
                })?
            }
        };
        let mut record: Record = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
        if row.status == Status::Running
            && let Some(worker) = row.item.maybe_text("worker")
        {
            let worker = WorkerId(worker.parse().map_err(|error| failed(&error))?);
            record.start(row.attempt, worker, row.item.time("started")?);
        }
        Ok(StoredRecord::new(row.owner, row.mode, record))
    }
}

/// Names one writing of one record.
pub(super) type Write = [u8; 8];

pub(super) fn new_write() -> Write {
    let mut write = [0; 8];
    write.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[8..]);
    write
}

/// What a partition is named after, without its share.
fn whose<'a>(item: &'a Item, partition: &str) -> Result<&'a str, StoreError> {
    let whose = item.text(partition)?.rsplit_once('#').map(|(whose, _)| whose);
    whose.ok_or_else(|| damaged("read a record", "it is in no partition"))
}

/// An item read back, but for the record itself.
pub(super) struct Row {
    pub owner: Owner,
    pub function: FunctionId,
    pub status: Status,
    pub attempt: u32,
    pub created: Timestamp,
    /// What the record holds, wherever it lies.
    pub size: usize,
    mode: Mode,
    over: Option<Timestamp>,
    item: Item,
}

impl Row {
    fn read(item: Item) -> Result<Self, StoreError> {
        let (owner, function) = (Owner::new(whose(&item, "of_owner")?), whose(&item, "of_function")?);
        let function = function.parse().map_err(|error| damaged("read a record", error))?;
        let status =
            Status::parse(item.text("status")?).ok_or_else(|| damaged("read a record", "an unknown status"))?;
        let created = item.text("seq")?.get(..14).and_then(|digits| digits.parse().ok());
        Ok(Self {
            owner,
            function,
            status,
            attempt: item.small("attempt")?,
            created: Timestamp(created.ok_or_else(|| damaged("read a record", "a place without a time"))?),
            size: item.number("size")? as usize,
            mode: if item.text("mode")? == "async" { Mode::Async } else { Mode::Sync },
            over: item.maybe_number("over").map(Timestamp),
            item,
        })
    }

    pub fn is_over(&self, now: Timestamp) -> bool {
        self.over.is_some_and(|at| at <= now)
    }

    /// What [`FINISH`] will decide when the other is written.
    pub fn gives_way_to(&self, other: &StoredRecord) -> bool {
        match self.status {
            Status::Queued => true,
            Status::Running => self.attempt <= other.record.attempt,
            _ => false,
        }
    }
}

/// Final records stand; a later attempt that has begun stands against an earlier one's outcome.
pub(super) const FINISH: &str =
    "attribute_not_exists(#id) OR #status = :queued OR (#status = :running AND #attempt <= :attempt)";
pub(super) const CREATE: &str = "attribute_not_exists(#id)";
pub(super) const MAY_START: &str = "#status = :queued OR (#status = :running AND #attempt <= :attempt)";
pub(super) const START: &str = "SET #status = :running, #attempt = :attempt, #worker = :worker, #started = :started";

/// The values of these conditions.
pub(super) fn fence(attempt: u32) -> [(&'static str, AttributeValue); 3] {
    [
        (":queued", text(Status::Queued.as_str())),
        (":running", text(Status::Running.as_str())),
        (":attempt", number(attempt)),
    ]
}

pub(super) fn id_of(item: &Item) -> Result<InvocationId, StoreError> {
    item.parsed("invocation")
}
