//! The controller: the HTTP API, who may use it, and the way from a request to an invocation and back.
//!
//! ```text
//! serve → api::{run, functions, …} → {auth, rate, lookup} → dispatch → Executor      (synchronous)
//!                                                         → accept   → JobQueue      (asynchronous)
//! ```
//!
//! It knows ports only. What it holds in memory is a cache or a view of calls in flight: all can be lost.

mod abandoned;
pub mod accept;
pub mod api;
pub mod audit;
pub mod auth;
pub mod body;
mod cors;
pub mod deploy;
mod detached;
pub mod dispatch;
pub mod error;
pub mod feed;
pub mod feeds;
pub mod fleet;
pub mod follow;
pub mod gate;
mod headers;
pub mod idempotency;
pub mod ids;
pub mod lookup;
pub mod metrics;
pub mod packages;
mod queued;
pub mod rate;
mod resize;
pub mod serve;
mod settle;
pub mod spec;
pub mod tls;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::config::{Config, Dispatch};
use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::time::Timestamp;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::audit::AuditLog;
use crate::ports::buckets::Buckets;
use crate::ports::bus::{Bus, News, Subscription};
use crate::ports::clock::Clock;
use crate::ports::disk::Disk;
use crate::ports::executor::{Builder, Executor, LogSinks};
use crate::ports::invocations::InvocationStore;
use crate::ports::keys::KeyStore;
use crate::ports::queue::{DeadLetters, JobQueue};
use crate::ports::registry::Registry;
use crate::ports::roster::Roster;
use crate::ports::sandbox::LogSink;

use self::audit::Audit;
use self::auth::{Authenticator, Tokens};
use self::error::{ApiError, Code};
use self::feeds::Feeds;
use self::fleet::Fleet;
use self::gate::Gate;
use self::lookup::Functions;
use self::metrics::Metrics;
use self::packages::Packages;
use self::rate::RateLimiter;
use self::settle::Settling;

pub use self::api::router;
pub use self::serve::serve;

/// Uploads read into memory at once; the next waits for one to end.
const UPLOADS_AT_ONCE: usize = 4;
/// Invocations at other workers that are followed at once, each a stream between two nodes.
const ELSEWHERE_MAX: usize = 1000;

/// All that a controller needs of the world.
pub struct ControllerPorts {
    pub registry: Arc<dyn Registry>,
    pub invocations: Arc<dyn InvocationStore>,
    pub queue: Arc<dyn JobQueue>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub artifacts: Arc<dyn ArtifactStore>,
    pub keys: Arc<dyn KeyStore>,
    /// `None`: no tokens, only keys.
    pub tokens: Option<Tokens>,
    pub audit: Arc<dyn AuditLog>,
    pub bus: Arc<dyn Bus>,
    /// Of the rate limits, where several controllers share them.
    pub buckets: Option<Arc<dyn Buckets>>,
    pub clock: Arc<dyn Clock>,
    pub executor: Arc<dyn Executor>,
    pub builder: Arc<dyn Builder>,
    pub packages: Arc<dyn Packages>,
    /// What nodes of a fleet tell each other of their workers by; `None`: there is no fleet, or it has no such place.
    pub roster: Option<Arc<dyn Roster>>,
    pub disk: Arc<dyn Disk>,
    /// What this node is called where it runs something itself: the worker of this process, if there is one.
    pub node_id: WorkerId,
}

pub struct Controller {
    config: Arc<Config>,
    functions: Functions,
    keys: Authenticator,
    audit: Audit,
    invocations: Arc<dyn InvocationStore>,
    queue: Arc<dyn JobQueue>,
    dead_letters: Arc<dyn DeadLetters>,
    artifacts: Arc<dyn ArtifactStore>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    executor: Arc<dyn Executor>,
    builder: Arc<dyn Builder>,
    packages: Arc<dyn Packages>,
    limiter: Option<RateLimiter>,
    feeds: Feeds,
    fleet: Fleet,
    calls: Arc<Gate>,
    /// Steps that must not stop half-way because their client hung up.
    steps: Arc<Gate>,
    uploads: Arc<Semaphore>,
    settling: Settling,
    /// Invocations at other workers whose lines are told here: what comes beyond that is told at its end.
    elsewhere: Arc<Semaphore>,
    metrics: Metrics,
    prometheus: prometheus::Registry,
    roster: Option<Arc<dyn Roster>>,
    disk: Arc<dyn Disk>,
    node_id: WorkerId,
    /// Synchronous calls go through the queue, all of them.
    queues_all: bool,
    started: Duration,
    draining: AtomicBool,
    listener: OnceLock<AbortHandle>,
}

impl Controller {
    /// Starts listening to the bus: call it inside a runtime. The listener ends with the controller.
    pub fn new(ports: ControllerPorts, config: Arc<Config>, prometheus: prometheus::Registry) -> Arc<Self> {
        let subscription = ports.bus.subscribe();
        let metrics = Metrics::new(&prometheus);
        let throttled = metrics.auth_throttled.clone();
        let controller = Arc::new(Self {
            functions: Functions::new(ports.registry, !ports.bus.loses_silently()),
            keys: Authenticator::new(ports.keys, ports.tokens, &config, ports.clock.clone(), throttled),
            audit: Audit::new(
                ports.audit,
                config.audit.refusals_max,
                metrics.audit_entries.clone(),
                metrics.audit_failures.clone(),
            ),
            invocations: ports.invocations,
            queue: ports.queue,
            dead_letters: ports.dead_letters,
            artifacts: ports.artifacts,
            bus: ports.bus,
            roster: ports.roster,
            disk: ports.disk,
            node_id: ports.node_id,
            queues_all: config.fleet.dispatch == Dispatch::Queue,
            executor: ports.executor,
            builder: ports.builder,
            packages: ports.packages,
            limiter: RateLimiter::new(&config.rate_limit, ports.buckets, &ports.clock),
            feeds: Feeds::default(),
            fleet: Fleet::default(),
            calls: Arc::default(),
            steps: Arc::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_AT_ONCE)),
            settling: Settling::default(),
            elsewhere: Arc::new(Semaphore::new(ELSEWHERE_MAX)),
            metrics,
            prometheus,
            started: ports.clock.monotonic(),
            clock: ports.clock,
            draining: AtomicBool::new(false),
            listener: OnceLock::new(),
            config,
        });
        let task = tokio::spawn(listen(Arc::downgrade(&controller), subscription));
        // Set once, here; the task is aborted when the controller is dropped.
        let _ = controller.listener.set(task.abort_handle());
        // Ends by itself within a minute of the controller.
        tokio::spawn(resize::resize_now_and_then(Arc::downgrade(&controller)));
        controller
    }

    /// From now on `/run` answers 503 and `/ready` says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Synchronous calls in flight.
    pub fn calls_running(&self) -> usize {
        self.calls.inside()
    }

    /// Runs `step` to its end even if the client hangs up meanwhile; shutdown waits for it.
    async fn to_the_end<T: Send + 'static>(
        &self,
        step: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let pass = self.steps.enter(usize::MAX);
        let task = tokio::spawn(async move {
            let _pass = pass;
            step.await
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a step of a request failed");
            Err(ApiError::new(Code::InternalError, "something went wrong here; the log has the request's id"))
        })
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn hear(&self, news: News) {
        match news {
            News::FunctionChanged(id) => self.functions.reload(id, self.clock.monotonic()).await,
            News::KeyRevoked(id) => self.keys.forget(id),
            News::Finished(id) => {
                if let Some(feed) = self.feeds.get(id).filter(|feed| feed.running().is_none()) {
                    feed.nudge();
                    self.feeds.retire(id, self.clock.monotonic());
                }
            }
            News::Cancel(id) => {
                self.executor.cancel(id);
            }
        }
    }

    fn hear_nothing_reliable(&self) {
        self.functions.forget_all();
        self.keys.forget_all();
        self.feeds.nudge_all();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

async fn listen(controller: Weak<Controller>, mut subscription: Box<dyn Subscription>) {
    loop {
        let news = subscription.next().await;
        let Some(controller) = controller.upgrade() else { return };
        match news {
            Some(news) => controller.hear(news).await,
            None => controller.hear_nothing_reliable(),
        }
    }
}

impl LogSinks for Controller {
    fn sink_for(&self, id: InvocationId, attempt: u32) -> Option<Arc<dyn LogSink>> {
        let feed = self.feeds.open(id)?;
        feed.started(attempt);
        Some(feed)
    }
}
