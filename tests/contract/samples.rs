//! Plain values of the domain, for suites to store.

use std::sync::Arc;

use bytes::Bytes;
use faasd::domain::function::{Function, Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, InvocationId, Owner, VersionKey, WorkerId};
use faasd::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use faasd::domain::job::{Job, Payload};
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use uuid::Uuid;

pub fn function_id() -> FunctionId {
    FunctionId(Uuid::new_v4())
}

pub fn invocation_id() -> InvocationId {
    InvocationId(Uuid::now_v7())
}

pub fn worker_id() -> WorkerId {
    WorkerId(Uuid::new_v4())
}

pub fn function(owner: &str, name: &str) -> (Function, Version) {
    let id = function_id();
    let (owner, at) = (Owner::new(owner), Timestamp(1_763_776_800_123));
    let function = Function { id, owner, name: name.into(), current: 1, created_at: at, updated_at: at };
    let version = version(&function, 1);
    (function, version)
}

pub fn version(function: &Function, number: u32) -> Version {
    Version {
        function_id: function.id,
        number,
        owner: function.owner.clone(),
        function_name: function.name.clone(),
        description: format!("number {number}"),
        runtime: Runtime::Python,
        handler: number.is_multiple_of(2).then(|| "main.handler".to_owned()),
        memory_mb: 128,
        auto_memory: false,
        timeout_ms: 30_000,
        env: [("TABLE".to_owned(), format!("t{number}"))].into(),
        code: Digest([number as u8; 32]),
        code_bytes: 1234,
        created_at: Timestamp(1_763_776_800_123 + u64::from(number)),
    }
}

pub fn job(owner: &str) -> Job {
    Job {
        invocation: invocation_id(),
        owner: Owner::new(owner),
        version: VersionKey { function: function_id(), number: 3 },
        payload: Payload::Inline(Bytes::from_static(b"{\"n\":1}")),
        model_id: None,
        accepted_at: Timestamp(1_763_776_800_123),
        mode: Mode::Async,
    }
}

/// A QUEUED record of an asynchronous call, created now.
pub fn queued(owner: &str) -> StoredRecord {
    queued_at(owner, function_id(), wall())
}

pub fn queued_at(owner: &str, id: FunctionId, at: Timestamp) -> StoredRecord {
    let (function, _) = function(owner, "hello");
    let version = Version { function_id: id, ..version(&function, 1) };
    let invocation = Invocation {
        id: invocation_id(),
        version: Arc::new(version),
        payload: Bytes::from_static(b"null"),
        model_id: None,
        attempt: 1,
        accepted_at: at,
        mode: Mode::Async,
    };
    StoredRecord::new(Owner::new(owner), Mode::Async, Record::queued(&invocation))
}

/// The same record at its end, by that attempt.
pub fn ended(stored: &StoredRecord, attempt: u32, status: Status, at: Timestamp) -> Arc<StoredRecord> {
    let mut stored = stored.clone();
    stored.record.attempt = attempt;
    stored.record.status = status;
    stored.record.finished_at = Some(at);
    stored.record.stdout = "printed\n".to_owned();
    let value = format!("{{\"attempt\":{attempt}}}");
    stored.record.result = Some(serde_json::value::RawValue::from_string(value).unwrap().into());
    Arc::new(stored)
}

/// A final record that was never stored before, ended now.
pub fn finished(owner: &str, status: Status) -> Arc<StoredRecord> {
    ended(&queued(owner), 1, status, wall())
}

fn wall() -> Timestamp {
    Timestamp(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64)
}

/// Two records are the same when they read the same.
pub fn json(stored: &StoredRecord) -> serde_json::Value {
    serde_json::to_value(&stored.record).unwrap()
}
