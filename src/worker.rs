//! The worker: runs invocations in sandboxes. The imperative shell around `domain::pool`.
//!
//! ```text
//! execute ─► check_out ─► sandbox.invoke ─► check in ─► outcome        (execute, sandboxes, verdict)
//! poll    ─► lease ─► RUNNING ─► execute ─► stored ─► told ─► acknowledged          (poll, job)
//! ```
//!
//! It knows ports only. A sandbox is returned before its call's outcome is, so that a client calling in sequence finds it.

mod advisors;
mod build;
mod cancel;
mod capacity;
mod code_cache;
mod execute;
#[cfg(test)]
pub(crate) mod fake;
mod given_up;
mod handle;
mod heard;
mod job;
mod learned;
mod lent;
mod metrics;
mod poll;
mod processors;
mod sampler;
mod sandboxes;
mod tasks;
#[cfg(test)]
mod tests;
mod ticker;
mod uploads;
pub(crate) mod value;
mod verdict;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};

use crate::config::Config;
use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{InvocationId, VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;
use crate::domain::policy::advice::Advice;
use crate::domain::policy::retry::Retry;
use crate::domain::pool::{Event, Pool};
use crate::ports::artifacts::ArtifactStore;
use crate::ports::bus::{Bus, News};
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;
use crate::ports::executor::{
    BuildError, Builder, ExecuteError, Executor, Host, LogSinks, Order, OrderError, PoolView, Storing, WorkerState,
    WorkerView,
};
use crate::ports::invocations::InvocationStore;
use crate::ports::lessons::Lessons;
use crate::ports::queue::JobQueue;
use crate::ports::registry::Registry;
use crate::ports::sandbox::{LogSink, SandboxDriver};

pub use capacity::Machine;
pub use code_cache::Packages;
pub use metrics::{FunctionMetrics, Metrics};

use advisors::Advisors;
use cancel::{Calls, Why};
use code_cache::CodeCache;
use heard::Listeners;
use sandboxes::{Sandboxes, Wait};
use tasks::Tasks;
use uploads::Uploads;

/// Compilations at once: each takes its memory out of the pool's budget.
const BUILDS_MAX: usize = 2;
/// Packages unpacked at once ahead of their first call: each takes a thread, and its disk from the calls that run.
const PREPARING_MAX: usize = 2;
/// How often a drain looks whether all calls are over.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// After its deadline a drain waits this long, beyond the grace, for what it has ended.
const DRAIN_END: Duration = Duration::from_secs(10);

/// What the worker needs of the world.
pub struct WorkerPorts {
    pub sandboxes: Arc<dyn SandboxDriver>,
    pub packages: Arc<dyn Packages>,
    pub queue: Arc<dyn JobQueue>,
    pub invocations: Arc<dyn InvocationStore>,
    pub registry: Arc<dyn Registry>,
    pub artifacts: Arc<dyn ArtifactStore>,
    pub bus: Arc<dyn Bus>,
    pub lessons: Arc<dyn Lessons>,
    pub clock: Arc<dyn Clock>,
}

/// Who this worker is and what it can do.
pub struct Identity {
    pub id: WorkerId,
    /// Where others reach it; shown only.
    pub address: String,
    pub machine: Machine,
    /// Runtimes that can run here; of others no sandbox is kept ready.
    pub runtimes: Vec<Runtime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Active,
    /// Takes no new work, until it is told otherwise.
    Cordoned,
    /// Takes none any more.
    Draining,
    /// Past the drain's deadline: what still runs is ended.
    Ending,
}

/// Why it takes no new work: each reason ends by itself.
#[derive(Default)]
struct Cordons {
    /// By a person, or by what the instance is told.
    ordered: bool,
    /// Nobody of the fleet is heard.
    alone: bool,
}

/// See the module. Made by [`Worker::new`]; does nothing by itself until [`Worker::start`].
pub struct Worker {
    identity: Identity,
    config: Arc<Config>,
    sandboxes: Arc<Sandboxes>,
    advisors: Arc<Advisors>,
    driver: Arc<dyn SandboxDriver>,
    code: Arc<CodeCache>,
    queue: Arc<dyn JobQueue>,
    invocations: Arc<dyn InvocationStore>,
    registry: Arc<dyn Registry>,
    artifacts: Arc<dyn ArtifactStore>,
    bus: Arc<dyn Bus>,
    lessons: Arc<dyn Lessons>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    calls: Calls,
    uploads: Uploads,
    listeners: Listeners,
    builds: Semaphore,
    preparing: Arc<Semaphore>,
    retry: Retry,
    grace: Duration,
    phase: watch::Sender<Phase>,
    cordons: Mutex<Cordons>,
    /// Told when somebody wants this process to drain and end.
    drain_asked: Notify,
    pace: Mutex<metrics::Pace>,
    /// Ends by itself after a cordon.
    polling: Tasks,
    /// Runs until it is aborted.
    background: Tasks,
}

impl Worker {
    /// Opens the code cache below `config.data_dir`; its directory must be this worker's alone.
    pub fn new(
        ports: WorkerPorts,
        config: Arc<Config>,
        identity: Identity,
        metrics: Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        let WorkerPorts { sandboxes: driver, packages, queue, invocations, registry, artifacts, bus, lessons, clock } =
            ports;
        let code =
            Arc::new(CodeCache::open(&config.data_dir, config.pool.code_cache_bytes, artifacts.clone(), packages)?);
        let pool = Pool::new(capacity::settings(&config, identity.machine, &identity.runtimes));
        let init_timeout = Duration::from_millis(config.sandbox.init_timeout_ms);
        let advisors = Arc::new(Advisors::new(config.limits.clone()));
        let sandboxes = Sandboxes::new(
            pool,
            driver.clone(),
            code.clone(),
            clock.clone(),
            metrics.clone(),
            advisors.clone(),
            init_timeout,
        );
        let retry = Retry {
            attempts_max: config.queue.attempts_max,
            backoff: Duration::from_millis(config.queue.backoff_ms),
            backoff_max: Duration::from_millis(config.queue.backoff_max_ms),
        };
        let uploads = Uploads::new(artifacts.clone(), metrics.clone());
        Ok(Arc::new(Self {
            grace: Duration::from_millis(config.sandbox.grace_ms),
            identity,
            config,
            sandboxes,
            advisors,
            driver,
            code,
            queue,
            invocations,
            registry,
            artifacts,
            bus,
            lessons,
            clock,
            metrics,
            calls: Calls::default(),
            uploads,
            listeners: Listeners::default(),
            builds: Semaphore::new(BUILDS_MAX),
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            retry,
            phase: watch::Sender::new(Phase::Active),
            cordons: Mutex::default(),
            drain_asked: Notify::new(),
            pace: Mutex::default(),
            polling: Tasks::default(),
            background: Tasks::default(),
        }))
    }

    /// Tells who wants to hear what asynchronous invocations print. Of those that began before it hears nothing.
    pub fn listen(&self, listeners: Weak<dyn LogSinks>) {
        self.listeners.add(listeners);
    }

    /// Begins to poll the queue, keep sandboxes ready and hear cancellations. Must run inside a tokio runtime; once.
    pub fn start(self: &Arc<Self>) {
        self.background.spawn(self.sandboxes.clone().tick());
        self.background.spawn(self.clone().hear());
        self.background.spawn(self.clone().keep_learned());
        self.background.spawn(self.clone().bury_given_up());
        let sample_ms = self.config.metrics.sample_ms;
        if sample_ms > 0 {
            self.background.spawn(self.sandboxes.clone().sample(Duration::from_millis(sample_ms)));
        }
        self.polling.spawn(self.clone().poll());
    }

    /// Takes no new work, lets what runs finish for `within`, then ends it (jobs go back to the queue, uncounted) and every
    /// sandbox. `true` if all calls finished by themselves.
    pub async fn drain(&self, within: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        self.sandboxes.apply(Event::Drain);
        let finished = tokio::time::timeout(within, self.finished()).await.is_ok();
        if !finished {
            tracing::warn!(calls = self.calls.len(), "drain time is over, calls are ended");
            self.phase.send_replace(Phase::Ending);
            self.calls.tell_all(Why::Draining);
        }
        let rest = async {
            self.finished().await;
            self.background.abort();
            self.background.join().await;
            self.sandboxes.join().await;
            self.save_learned_at_end().await;
        };
        if tokio::time::timeout(self.grace + DRAIN_END, rest).await.is_err() {
            tracing::error!(sandboxes = self.sandboxes.with_pool(Pool::sandboxes), "sandboxes left after the drain");
        }
        finished
    }

    /// Returns when somebody asked for this process to drain and end.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// Takes no new work, or takes it again; `false`: it drains.
    pub fn cordon(&self, on: bool) -> bool {
        self.cordon_for(|cordons| cordons.ordered = on)
    }

    /// The same for as long as it hears of nobody, whatever it is told meanwhile.
    pub fn cordon_alone(&self, on: bool) -> bool {
        self.cordon_for(|cordons| cordons.alone = on)
    }

    fn cordon_for(&self, change: impl FnOnce(&mut Cordons)) -> bool {
        // Held to the end: of two changes at once the later one is in force.
        let mut cordons = self.cordons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut cordons);
        let on = cordons.ordered || cordons.alone;
        let mut drains = false;
        self.phase.send_if_modified(|phase| {
            let next = if on { Phase::Cordoned } else { Phase::Active };
            drains = *phase > Phase::Cordoned;
            !drains && std::mem::replace(phase, next) != next
        });
        if !drains {
            self.sandboxes.apply(Event::Cordon { on });
        }
        !drains
    }

    /// No call is here, the poll loop is over, and what calls left is stored.
    async fn finished(&self) {
        self.polling.join().await;
        while self.calls.len() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        self.uploads.join().await;
    }

    /// Stops what the bus says is cancelled; for ever.
    async fn hear(self: Arc<Self>) {
        let mut news = self.bus.subscribe();
        loop {
            if let Some(News::Cancel(id)) = news.next().await {
                self.cancel(id);
            }
        }
    }
}

#[async_trait]
impl Executor for Worker {
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        self.run_invocation(&invocation, Wait::InLine, acquire_timeout, log).await
    }

    fn storing(&self, id: InvocationId) -> Option<Storing> {
        self.uploads.under_way(id)
    }

    fn cancel(&self, id: InvocationId) -> bool {
        self.calls.tell(id, Why::Asked)
    }

    fn retire(&self, version: VersionKey) {
        self.sandboxes.retire(version);
        self.advisors.retire(version);
    }

    fn prepare(&self, version: &Version) {
        // Where many are published at once, the first call of some unpacks them itself.
        let Ok(place) = self.preparing.clone().try_acquire_owned() else { return };
        let (code, digest) = (self.code.clone(), version.code);
        self.background.spawn(async move {
            let _place = place;
            if let Err(error) = code.get(digest).await {
                tracing::debug!(%digest, %error, "code not prepared");
            }
        });
    }

    fn advice(&self, version: VersionKey) -> Option<Arc<Advice>> {
        self.advisors.advice(version)
    }

    async fn resizes(&self) -> Vec<(VersionKey, u32)> {
        self.advisors.resizes()
    }

    fn view(&self) -> Option<WorkerView> {
        let (counts, active, waiting, capacity) = self.sandboxes.with_pool(|pool| {
            (pool.counts(), pool.active() as u32, pool.waiting() as u32, pool.settings().concurrency_max as u32)
        });
        let pools = self.identity.runtimes.iter().map(|runtime| {
            let of = counts[*runtime as usize];
            let view = PoolView { warm: of.warm, prewarmed: of.prewarmed, busy: of.busy, starting: of.starting };
            (*runtime, view)
        });
        let state = match *self.phase.borrow() {
            Phase::Active => WorkerState::Active,
            Phase::Cordoned => WorkerState::Cordoned,
            Phase::Draining | Phase::Ending => WorkerState::Draining,
        };
        let mean = self.metrics.mean_handler(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner));
        Some(WorkerView {
            id: self.identity.id,
            address: self.identity.address.clone(),
            state,
            pools: BTreeMap::from_iter(pools),
            active,
            waiting,
            capacity,
            load: f64::from(active) / f64::from(capacity.max(1)),
            mean_ms: mean.as_secs_f64() * 1000.0,
            last_seen: self.clock.now(),
        })
    }

    async fn order(&self, worker: WorkerId, order: Order) -> Result<(), OrderError> {
        if worker != self.identity.id {
            return Err(OrderError::NotFound);
        }
        tracing::info!(order = order.as_str(), "told what to do with new work");
        match order {
            Order::Cordon | Order::Uncordon if !self.cordon(order == Order::Cordon) => Err(OrderError::Draining),
            Order::Cordon | Order::Uncordon => Ok(()),
            Order::Drain => {
                self.drain_asked.notify_one();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Host for Worker {
    async fn execute_idle(
        &self,
        invocation: Arc<Invocation>,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        self.run_invocation(&invocation, Wait::Never, Duration::ZERO, log).await
    }

    fn withdraw(&self, id: InvocationId) -> bool {
        self.calls.withdraw(id)
    }

    fn idle(&self) -> Vec<(VersionKey, u32)> {
        self.sandboxes.with_pool(|pool| pool.idle().map(|(version, idle)| (version, idle as u32)).collect())
    }

    fn idle_of(&self, version: VersionKey) -> u32 {
        self.sandboxes.with_pool(|pool| pool.idle_of(version) as u32)
    }

    async fn idle_changed(&self) {
        self.sandboxes.changed().await;
    }
}

/// Code that no sandbox holds: it is unpacked again when it is wanted.
#[async_trait]
impl Spare for Worker {
    fn name(&self) -> &'static str {
        "code"
    }

    async fn give_back(&self, wanted: u64) -> u64 {
        self.code.give_back(wanted)
    }
}

#[async_trait]
impl Builder for Worker {
    async fn build(&self, runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError> {
        self.compile(runtime, package).await
    }
}
