//! Jobs: an invocation's message in the queue, the lease on it, and the letter it becomes when nobody could run it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ids::{Digest, InvocationId, Owner, VersionKey};
use super::invocation::Mode;
use super::time::Timestamp;

/// The input of an invocation, beside the job or in the artifact store when it is too large for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Inline(Bytes),
    Stored(Digest),
}

/// What a worker needs to run an accepted invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub invocation: InvocationId,
    pub owner: Owner,
    pub version: VersionKey,
    pub payload: Payload,
    pub model_id: Option<String>,
    pub accepted_at: Timestamp,
    /// Whether a caller waits for its end, who is not kept waiting by another attempt after the function failed.
    pub mode: Mode,
}

/// Names one lease of one job; a later lease of the same job has another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseToken(pub String);

/// The right to a job until a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub token: LeaseToken,
    pub job: Job,
    /// Counted from 1; higher than that of every earlier lease of the same job, but for those given back uncounted.
    pub attempt: u32,
    /// How long from receipt the right lasts unless extended.
    pub valid_for: Duration,
}

/// A job that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub job: Job,
    pub attempts: u32,
    /// One sentence.
    pub reason: String,
    pub died_at: Timestamp,
}

/// How much work waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    /// Ready to be leased.
    pub ready: u64,
    /// Waiting for their delay to pass.
    pub delayed: u64,
    pub leased: u64,
    /// How long the oldest of the ready ones has been ready.
    pub oldest_ms: u64,
    /// Jobs that were given up.
    pub dead: u64,
}
