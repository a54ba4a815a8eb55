//! What controller and worker say to each other: heads in JSON, payloads and results as the bytes they are.
//!
//! ```text
//! a request's body:  length of head (4, LE) · head · payload
//! an answer's body:  frames: kind (1) · length (4, LE) · bytes      WAITS and BEGINS once at most, LINE often, then one last frame
//! an outcome:        length of head (4, LE) · head · result
//! ```
//!
//! A node of another version of this is told so, and nothing of it is read.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::function::Runtime;
use crate::domain::ids::{Digest, FunctionId, InvocationId, VersionKey, WorkerId};
use crate::domain::invocation::Mode;
use crate::domain::outcome::{Failure, Lost, Outcome, Output, OutputFile, Place, StartType, Status, Timings, Usage};
use crate::domain::policy::advice::Advice;
use crate::ports::executor::{BuildError, ExecuteError, Order};

pub const VERSION: &str = "1";
pub const VERSION_HEADER: &str = "faasd-fleet";
pub const HELLO_HEADER: &str = "faasd-hello";
pub const PROOF_HEADER: &str = "faasd-proof";
pub const DIGEST_HEADER: &str = "faasd-digest";

pub const HELLO: &str = "/fleet/hello";
pub const EXECUTE: &str = "/fleet/execute";
pub const WITHDRAW: &str = "/fleet/withdraw";
pub const CANCEL: &str = "/fleet/cancel";
pub const RETIRE: &str = "/fleet/retire";
pub const FOLLOW: &str = "/fleet/follow";
pub const PREPARE: &str = "/fleet/prepare";
pub const RESIZES: &str = "/fleet/resizes";
pub const ORDER: &str = "/fleet/order";
pub const BUILD: &str = "/fleet/build";

/// A head is a few ids and numbers.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A call goes from a controller to a worker; a worker sends none on.
pub const HOPS_MAX: u8 = 1;
/// What an outcome has beside its result and what was printed: names of files, a trace.
pub const OUTCOME_BYTES: u64 = 4 << 20;

pub const WAITS: u8 = 1;
pub const BEGINS: u8 = 2;
pub const LINE: u8 = 3;
pub const OUTCOME: u8 = 4;
pub const REFUSED: u8 = 5;
pub const BUILT: u8 = 6;
/// After an outcome that says so: what it names has arrived in the artifact store, or is lost.
pub const STORED: u8 = 7;
/// Of an invocation that is followed: no more lines, or none at all, for it does not run here.
pub const OVER: u8 = 8;

/// A controller's right to an idle sandbox, and where it has it from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Claim {
    /// None: the call may wait for a sandbox.
    None,
    /// Taken from those that were offered.
    Taken,
    /// Kept since its last call there.
    Held,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallHead {
    pub id: InvocationId,
    pub function: FunctionId,
    pub number: u32,
    pub attempt: u32,
    pub model: Option<String>,
    /// Since it was accepted: nodes' clocks need not agree.
    pub age_ms: u64,
    pub mode: Mode,
    pub claim: Claim,
    /// How long it may wait for a sandbox.
    pub acquire_ms: u64,
    /// What is printed is wanted as it is printed.
    pub lines: bool,
    pub hops: u8,
}

impl CallHead {
    pub fn version(&self) -> VersionKey {
        VersionKey { function: self.function, number: self.number }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdHead {
    pub id: InvocationId,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderHead {
    pub order: Order,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildHead {
    pub runtime: Runtime,
    pub hops: u8,
}

/// Where the question says it all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Yes or no, and what to do about a no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub done: bool,
}

/// Why a call or a build was not run, or not to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "refusal")]
pub enum Refusal {
    NoCapacity {
        reason: String,
        retry_ms: u64,
    },
    TooManyCalls {
        reason: String,
        retry_ms: u64,
    },
    Draining,
    Stale,
    Withdrawn,
    Unsupported {
        reason: String,
    },
    Platform {
        reason: String,
    },
    /// The compiler's words.
    Rejected {
        reason: String,
    },
    NoCompiler {
        reason: String,
    },
}

/// Versions that a worker says are to be resized, in one answer; the others come when these have been.
pub const RESIZES_MAX: usize = 1000;

/// What a worker's calls say about a version's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    pub version: VersionKey,
    pub memory_mb: u32,
}

/// Longer sentences are cut: they go into answers and logs.
const REASON_BYTES_MAX: usize = 64 * 1024;
const STORED_BYTES_MAX: usize = 1 << 20;

impl From<ExecuteError> for Refusal {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::NoCapacity { reason, retry_after } => {
                Refusal::NoCapacity { reason, retry_ms: retry_after.as_millis() as u64 }
            }
            ExecuteError::TooManyCalls { reason, retry_after } => {
                Refusal::TooManyCalls { reason, retry_ms: retry_after.as_millis() as u64 }
            }
            ExecuteError::Draining => Refusal::Draining,
            ExecuteError::Stale => Refusal::Stale,
            ExecuteError::Withdrawn => Refusal::Withdrawn,
            ExecuteError::Unsupported(reason) => Refusal::Unsupported { reason },
            ExecuteError::Platform(reason) | ExecuteError::Unreachable(reason) => Refusal::Platform { reason },
        }
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Rejected(reason) => Refusal::Rejected { reason },
            BuildError::NoCompiler(reason) => Refusal::NoCompiler { reason },
            BuildError::Execute(error) => error.into(),
        }
    }
}

/// Head and what follows it, as one body.
pub fn body(head: &impl Serialize, rest: &[u8]) -> serde_json::Result<Bytes> {
    let mut body = BytesMut::with_capacity(256 + rest.len());
    body.put_u32_le(0);
    serde_json::to_writer((&mut body).writer(), head)?;
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
    body.extend_from_slice(rest);
    Ok(body.freeze())
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Head and rest of a body.
pub fn parts<T: for<'a> Deserialize<'a>>(mut body: Bytes, head_bytes_max: usize) -> Result<(T, Bytes), Malformed> {
    if body.len() < 4 {
        return Err(Malformed("it is cut off"));
    }
    let length = body.get_u32_le() as usize;
    if length > head_bytes_max || length > body.len() {
        return Err(Malformed("its head is longer than may be"));
    }
    let head = serde_json::from_slice(&body[..length]).map_err(|_| Malformed("its head can't be read"))?;
    body.advance(length);
    Ok((head, body))
}

pub fn frame(kind: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + bytes.len());
    frame.put_u8(kind);
    frame.put_u32_le(bytes.len() as u32);
    frame.extend_from_slice(bytes);
    frame.freeze()
}

pub fn refused(refusal: impl Into<Refusal>) -> Bytes {
    // Strings and numbers are always JSON.
    frame(REFUSED, &serde_json::to_vec(&refusal.into()).unwrap_or_default())
}

/// An outcome without its result.
#[derive(Serialize, Deserialize)]
pub struct OutcomeHead {
    pub id: InvocationId,
    pub attempt: u32,
    pub worker: WorkerId,
    /// The sandbox is idle again, and left to this caller for a while.
    pub kept: bool,
    /// What it names is on its way: one more frame follows.
    #[serde(default)]
    storing: bool,
    has_result: bool,
    status: Status,
    failure: Option<Failure>,
    exit_code: Option<i32>,
    stdout: Output,
    stderr: Output,
    log_artifact: Option<Digest>,
    start_type: Option<StartType>,
    timings: Timings,
    usage: Usage,
    output_files: Vec<OutputFile>,
    llm_token_count: Option<u64>,
    advice: Option<Arc<Advice>>,
}

/// What else a worker says of a call with its outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// The sandbox is idle again, and left to this caller for a while.
    pub kept: bool,
    /// What the outcome names is on its way to the store: [`STORED`] follows.
    pub storing: bool,
}

/// The last frame of a call that ran, or the last but one.
pub fn outcome(id: InvocationId, attempt: u32, worker: WorkerId, after: After, outcome: Outcome) -> Bytes {
    let result = outcome.result;
    let head = OutcomeHead {
        id,
        attempt,
        worker,
        kept: after.kept,
        storing: after.storing,
        has_result: result.is_some(),
        status: outcome.status,
        failure: outcome.failure,
        exit_code: outcome.exit_code,
        stdout: outcome.stdout,
        stderr: outcome.stderr,
        log_artifact: outcome.log_artifact,
        start_type: outcome.start_type,
        timings: outcome.timings,
        usage: outcome.usage,
        output_files: outcome.output_files,
        llm_token_count: outcome.llm_token_count,
        advice: outcome.advice,
    };
    let result = result.as_ref().map_or(&[][..], |result| result.get().as_bytes());
    let mut frame = BytesMut::with_capacity(1024 + head.stdout.text.len() + head.stderr.text.len() + result.len());
    frame.put_u8(OUTCOME);
    frame.put_u64_le(0);
    if serde_json::to_writer((&mut frame).writer(), &head).is_err() {
        return refused(Refusal::Platform { reason: "the outcome could not be written".to_owned() });
    }
    let head_length = (frame.len() - 9) as u32;
    frame.extend_from_slice(result);
    let length = (frame.len() - 5) as u32;
    frame[1..5].copy_from_slice(&length.to_le_bytes());
    frame[5..9].copy_from_slice(&head_length.to_le_bytes());
    frame.freeze()
}

/// Reads an outcome, and checks that it is one of this attempt at this worker, and of a kind that a worker may tell.
pub fn read_outcome(
    bytes: Bytes,
    id: InvocationId,
    attempt: u32,
    worker: WorkerId,
    result_bytes_max: u64,
) -> Result<(Outcome, After), Malformed> {
    let most = bytes.len();
    let (head, result): (OutcomeHead, Bytes) = parts(bytes, most)?;
    if (head.id, head.attempt, head.worker) != (id, attempt, worker) {
        return Err(Malformed("it is another call's"));
    }
    if !matches!(head.status, Status::Success | Status::Failed | Status::Timeout | Status::Cancelled) {
        return Err(Malformed("it has a status that no attempt ends with"));
    }
    if head.status == Status::Success && head.failure.is_some() {
        return Err(Malformed("it says both that it failed and that it did not"));
    }
    if result.len() as u64 > result_bytes_max || (!head.has_result && !result.is_empty()) {
        return Err(Malformed("its result is larger than may be"));
    }
    let result = match head.has_result {
        true => {
            let text = String::from_utf8(result.into()).map_err(|_| Malformed("its result is no text"))?;
            Some(RawValue::from_string(text).map_err(|_| Malformed("its result is no JSON"))?.into())
        }
        false => None,
    };
    let outcome = Outcome {
        status: head.status,
        result,
        failure: head.failure,
        exit_code: head.exit_code,
        stdout: head.stdout,
        stderr: head.stderr,
        log_artifact: head.log_artifact,
        start_type: head.start_type,
        timings: head.timings,
        usage: head.usage,
        output_files: head.output_files,
        llm_token_count: head.llm_token_count,
        advice: head.advice,
        place: Some(Place { worker, attempt }),
    };
    Ok((outcome, After { kept: head.kept, storing: head.storing }))
}

/// The frame after an outcome whose artifacts were on their way.
pub fn stored(lost: &[Lost]) -> Bytes {
    frame(STORED, &serde_json::to_vec(lost).unwrap_or_default())
}

pub fn read_stored(bytes: &[u8]) -> Result<Vec<Lost>, Malformed> {
    if bytes.len() > STORED_BYTES_MAX {
        return Err(Malformed("what it says to have lost is longer than may be"));
    }
    serde_json::from_slice(bytes).map_err(|_| Malformed("what it says to have lost can't be read"))
}

/// What a refused call is told.
pub fn read_refusal(bytes: &[u8]) -> Result<Refusal, Malformed> {
    if bytes.len() > 2 * REASON_BYTES_MAX {
        return Err(Malformed("its refusal is longer than may be"));
    }
    serde_json::from_slice(bytes).map_err(|_| Malformed("its refusal can't be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn ids() -> (InvocationId, WorkerId) {
        (InvocationId(Uuid::from_u128(1)), WorkerId(Uuid::from_u128(2)))
    }

    fn sample() -> Outcome {
        let failure = Failure::new(crate::domain::outcome::ErrorType::FunctionError, "x");
        Outcome {
            failure: None,
            result: Some(RawValue::from_string("{\"a\": [1,  2]}".to_owned()).unwrap().into()),
            stdout: Output { text: "hällo\n".to_owned(), truncated: true, total_bytes: 99 },
            ..Outcome::without_execution(Status::Success, failure)
        }
    }

    #[test]
    fn an_outcome_reads_as_it_was_written_and_only_as_the_one_asked_for() {
        let (id, worker) = ids();
        let after = After { kept: true, storing: false };
        let frame = outcome(id, 2, worker, after, sample());
        assert_eq!(
            (frame[0], frame.len() - 5),
            (OUTCOME, u32::from_le_bytes(frame[1..5].try_into().unwrap()) as usize)
        );
        let read = |id, attempt, worker, most| read_outcome(frame.slice(5..), id, attempt, worker, most);
        let (back, said) = read(id, 2, worker, 1000).unwrap();
        assert_eq!(back.result.as_ref().unwrap().get(), "{\"a\": [1,  2]}", "as the bytes they were");
        assert_eq!((back.stdout, back.place, said), (sample().stdout, Some(Place { worker, attempt: 2 }), after));
        assert!(read(InvocationId(Uuid::nil()), 2, worker, 1000).is_err());
        assert!(read(id, 1, worker, 1000).is_err());
        assert!(read(id, 2, WorkerId(Uuid::nil()), 1000).is_err());
        assert!(read(id, 2, worker, 3).is_err());
    }

    #[test]
    fn an_outcome_that_no_worker_could_have_is_refused() {
        let (id, worker) = ids();
        let failure = Failure::new(crate::domain::outcome::ErrorType::FunctionError, "x");
        let lies = [
            Outcome { status: Status::Dead, ..sample() },
            Outcome { failure: Outcome::without_execution(Status::Failed, failure.clone()).failure, ..sample() },
            Outcome { status: Status::Queued, ..sample() },
        ];
        for lie in lies {
            assert!(
                read_outcome(outcome(id, 1, worker, After::default(), lie).slice(5..), id, 1, worker, 1000).is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (id, worker) = ids();
            let _ = parts::<CallHead>(bytes.clone().into(), HEAD_BYTES_MAX);
            let _ = read_refusal(&bytes);
            let _ = read_stored(&bytes);
            prop_assert!(read_outcome(bytes.into(), id, 1, worker, 100).is_err());
        }
    }
}
