//! Sandboxes as the worker sees them: started generic, given a version once, called one invocation at a time, ended once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::SandboxId;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Failure, Output, Usage};

use super::usage::UsageReader;

#[derive(Debug, Clone, thiserror::Error)]
pub enum SandboxError {
    /// This machine can't run the runtime (no interpreter, say); the message says what to install.
    #[error("{0}")]
    Unsupported(String),
    /// A step of making or driving a sandbox failed; another try may succeed.
    #[error("{step}: {cause}")]
    Failed { step: &'static str, cause: String },
    /// The sandbox ended before it answered.
    #[error("the sandbox ended: {0}")]
    Ended(Exit),
    #[error("shutting down")]
    Cancelled,
}

/// What kind of sandbox to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxKind {
    /// Runs functions of this runtime.
    Runtime(Runtime),
    /// Compiles the sources of this runtime, once, at deploy.
    Build(Runtime),
}

/// How the sandbox's first process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// The system call for which it was ended: one that no honest program makes.
    pub forbidden_call: Option<&'static str>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = self.forbidden_call {
            return write!(f, "killed: it made the forbidden system call {name}");
        }
        match (self.out_of_memory, self.signal, self.code) {
            (true, ..) => f.write_str("out of memory"),
            (_, Some(signal), _) => write!(f, "killed by signal {signal}"),
            (_, _, Some(code)) => write!(f, "exited with code {code}"),
            _ => f.write_str("ended for an unknown reason"),
        }
    }
}

/// How a call ended, as seen from outside the sandbox.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The handler's value: JSON by the sandbox's word, not yet checked.
    Returned(Bytes),
    /// The handler failed. The sandbox is as good as before.
    Raised { failure: Failure, exit_code: Option<i32> },
    /// The value was larger than allowed; the size is what the sandbox announced.
    ResultTooLarge(u64),
    /// The first process, or the one that was to answer, is gone.
    Died(Exit),
    /// It broke the protocol: lied, flooded, answered for another.
    Violated(String),
    /// The call never began: what an earlier one left of the sandbox was found unfit before anything was sent. Another sandbox may
    /// have the call.
    Spoiled(&'static str),
}

/// All there is to know of one call.
#[derive(Clone, Debug)]
pub struct Report {
    pub ending: Ending,
    pub stdout: Output,
    pub stderr: Output,
    /// stdout and stderr as they came, when one of them was cut; bounded by `limits.log_bytes`.
    pub full_log: Option<Bytes>,
    pub usage: Usage,
    /// By the runtime's own clock.
    pub handler_us: u64,
    pub llm_token_count: Option<u64>,
    /// Files from `/output`: path below it, contents. They are gone from the sandbox.
    pub output_files: Vec<(String, Bytes)>,
    /// Whether the sandbox may serve another call. If not, why: a few words for a metric label.
    pub reusable: Result<(), &'static str>,
}

/// A line that a function printed, as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Hears of a call while it is under way. Must not block.
pub trait LogSink: Send + Sync {
    fn line(&self, stream: Stream, line: &str);

    /// Whether anybody listens now: lines that have a long way to go are sent only then.
    fn is_heard(&self) -> bool {
        true
    }

    /// The call must wait for a sandbox …
    fn waits(&self) {}

    /// … and, having waited, has one. From now on it can't be withdrawn.
    fn begins(&self) {}
}

/// Why giving a sandbox its version failed.
#[derive(Debug, Clone)]
pub enum SpecialiseError {
    /// The user's code could not be loaded; what it printed meanwhile comes along.
    Init {
        failure: Failure,
        stdout: Output,
        stderr: Output,
    },
    Sandbox(SandboxError),
}

/// A version and where its files lie, unpacked, on this host.
#[derive(Clone, Debug)]
pub struct Specialisation {
    pub version: Arc<Version>,
    /// Mounted read-only at `/var/task`.
    pub code_dir: PathBuf,
    /// How long the code may take to load.
    pub init_timeout: Duration,
}

#[async_trait]
pub trait SandboxDriver: Send + Sync + 'static {
    /// A generic sandbox, isolated and with its runtime running, waiting for its code.
    async fn start(&self, id: SandboxId, kind: SandboxKind) -> Result<Arc<dyn Sandbox>, SandboxError>;
}

#[async_trait]
pub trait Sandbox: UsageReader {
    /// Gives the sandbox its version: limits, environment, code, import. Once, before the first call.
    async fn specialise(&self, what: &Specialisation) -> Result<(), SpecialiseError>;

    /// Runs one invocation to its end, however it ends. One at a time. Never waits longer than the sandbox lives: whoever
    /// wants it to stop calls [`Sandbox::terminate`] meanwhile. Dropping the future half-way spoils the sandbox: end it then.
    async fn invoke(&self, invocation: &Invocation, log: Option<&dyn LogSink>) -> Report;

    /// SIGTERM to the first process, then after `grace` SIGKILL to all. Returns when nothing is left.
    async fn terminate(&self, grace: Duration);

    /// Stops every process of the sandbox from being scheduled. A few microseconds; no waiting.
    fn freeze(&self) -> Result<(), SandboxError>;
    fn thaw(&self) -> Result<(), SandboxError>;

    /// Returns when the sandbox has ended, by itself or by `terminate`.
    async fn ended(&self) -> Exit;
}
