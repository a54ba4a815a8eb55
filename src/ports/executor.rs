//! The way from a controller to where functions run. In one process it is a call; in the fleet a hop.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{InvocationId, VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Lost, Outcome};
use crate::domain::policy::advice::Advice;
use crate::domain::time::Timestamp;

use super::sandbox::LogSink;

/// Why an invocation could not be run at all. What the *function* did is an [`Outcome`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecuteError {
    /// Every place is taken and the queue for one is full: 503 with `Retry-After`.
    #[error("no capacity: {reason}")]
    NoCapacity { reason: String, retry_after: Duration },
    /// This owner has as many calls under way as one may: 429 with `Retry-After`.
    #[error("too many calls: {reason}")]
    TooManyCalls { reason: String, retry_after: Duration },
    #[error("this worker is draining")]
    Draining,
    /// It was to run in an idle sandbox, and there is none.
    #[error("no sandbox of this version is idle here any more")]
    Stale,
    /// Whoever asked for it took it back while it waited: it has not begun and won't.
    #[error("the call was taken back before it began")]
    Withdrawn,
    /// No worker can be reached: it has not begun, and the queue may have it.
    #[error("no worker can be reached: {0}")]
    Unreachable(String),
    /// The runtime can't run here; the message says what to install.
    #[error("{0}")]
    Unsupported(String),
    /// A platform failure before or while the function ran.
    #[error("{0}")]
    Platform(String),
}

/// Why code could not be built.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// The compiler refused it: its words.
    #[error("{0}")]
    Rejected(String),
    /// No compiler here; the message says what to install, and that a prebuilt `main` works.
    #[error("{0}")]
    NoCompiler(String),
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Resolves when nothing of an outcome is on its way to the artifact store any more: with what did not get there, or `None` where that
/// can't be said.
pub type Storing = Pin<Box<dyn Future<Output = Option<Vec<Lost>>> + Send>>;

/// Runs invocations.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Runs one invocation to its end, enforcing its version's timeout. Never pends for ever. Waits at most `acquire_timeout`
    /// for a sandbox. The caller must not drop the future half-way: it runs it in a task of its own.
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError>;

    /// To be asked for after each outcome that names artifacts: they may still be on their way to the store, and nobody may read of them
    /// in a record before they are there. `None`: all are.
    fn storing(&self, _id: InvocationId) -> Option<Storing> {
        None
    }

    /// Tells `log` what an asynchronous invocation prints at a worker of another process: its last lines, then each as it is printed, to the
    /// attempt's end there. `false`: not a line came, because it does not run there now, or that worker can't be asked.
    async fn follow(&self, _id: InvocationId, _worker: WorkerId, _log: Arc<dyn LogSink>) -> bool {
        false
    }

    /// Stops it, waiting or running; `false` if it is not here. Its `execute` then ends with `CANCELLED`.
    fn cancel(&self, id: InvocationId) -> bool;

    /// No new calls go to sandboxes of this version (or of every version of a function that was deleted).
    fn retire(&self, version: VersionKey);

    /// Calls of this version may come soon: what can be done for the first ahead of it, is. Does not wait.
    fn prepare(&self, _version: &Version) {}

    /// What the last calls of a version say about its memory; `None`: nothing yet, or nothing to say.
    fn advice(&self, _version: VersionKey) -> Option<Arc<Advice>> {
        None
    }

    /// Versions whose owners want them resized by themselves, and the memory in MB that their calls have asked for steadily.
    async fn resizes(&self) -> Vec<(VersionKey, u32)> {
        Vec::new()
    }

    /// What `GET /workers` shows of the worker in this process; `None`: there is none here.
    fn view(&self) -> Option<WorkerView>;

    /// The workers of other processes that it knows of.
    fn others(&self) -> Vec<WorkerView> {
        Vec::new()
    }

    /// Tells a worker, this one or another, to change its ways.
    async fn order(&self, worker: WorkerId, order: Order) -> Result<(), OrderError>;
}

/// What becomes of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Take no new work; keep what is warm.
    Cordon,
    Uncordon,
    /// Take no new work, finish what runs, give the rest back, and end the process.
    Drain,
}

impl Order {
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Cordon => "cordon",
            Order::Uncordon => "uncordon",
            Order::Drain => "drain",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum OrderError {
    #[error("there is no such worker")]
    NotFound,
    /// It drains already.
    #[error("this worker is draining")]
    Draining,
    #[error("the worker can't be reached: {0}")]
    Unreachable(String),
}

/// A worker that processes beside its own may call.
#[async_trait]
pub trait Host: Executor + Builder {
    /// As [`Executor::execute`], in a sandbox that is idle now: else `Stale`, at once.
    async fn execute_idle(
        &self,
        invocation: Arc<Invocation>,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError>;

    /// Takes back a call that still waits for a sandbox: it ends with `Withdrawn`. `false`: it runs, or is not here.
    fn withdraw(&self, id: InvocationId) -> bool;

    /// Idle sandboxes that may be called, by version.
    fn idle(&self) -> Vec<(VersionKey, u32)>;

    /// The same of one version.
    fn idle_of(&self, version: VersionKey) -> u32;

    /// Returns when those may be others than at the last return. One listener.
    async fn idle_changed(&self);
}

/// Compiles sources, in a sandbox.
#[async_trait]
pub trait Builder: Send + Sync + 'static {
    /// From a package with `main.go` or `main.cpp` to one with an executable `main` beside the other files.
    async fn build(&self, runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError>;
}

/// Where a worker finds who listens to an asynchronous invocation that it starts.
pub trait LogSinks: Send + Sync + 'static {
    /// Called as an attempt begins. `None`: nobody can listen now, print for the record only.
    fn sink_for(&self, id: InvocationId, attempt: u32) -> Option<Arc<dyn LogSink>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WorkerState {
    Active,
    /// Takes no new work, until it is told otherwise.
    Cordoned,
    Draining,
    /// Unheard for too long.
    Dead,
}

/// Sandboxes of one runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Idle, of some version.
    pub warm: u32,
    /// Idle, generic.
    pub prewarmed: u32,
    pub busy: u32,
    pub starting: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerView {
    pub id: WorkerId,
    pub address: String,
    pub state: WorkerState,
    pub pools: BTreeMap<Runtime, PoolView>,
    /// Calls running.
    pub active: u32,
    /// Calls waiting for a sandbox.
    pub waiting: u32,
    /// Calls that may run at once.
    pub capacity: u32,
    /// `active / capacity`, 0 to 1.
    pub load: f64,
    /// How long a handler ran of late; 0: nothing is known.
    #[serde(default)]
    pub mean_ms: f64,
    pub last_seen: Timestamp,
}
