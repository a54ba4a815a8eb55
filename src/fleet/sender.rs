//! The fleet as an executor: a call goes to whoever has a sandbox for it, and on to the next where that fails.
//!
//! ```text
//! claim in hand, else one that is offered ─► its worker, from an idle sandbox only         stale: the next claim
//! none ─► the less loaded of two by rendezvous hash; while the call waits there ─► a claim comes: the call is moved there
//! not sent, draining, full ─► the next worker          sent and lost, or a lie ─► the next, as one more attempt
//! nobody, or nobody any more ─► `Unreachable`: the queue may have it          as many attempts as a call has ─► it failed
//! ```

mod ask;
mod trip;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{FunctionId, InvocationId, VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;
use crate::domain::policy::advice::Advice;
use crate::ports::claims::Claims;
use crate::ports::clock::Clock;
use crate::ports::executor::{BuildError, Builder, ExecuteError, Executor, Order, OrderError, Storing, WorkerView};
use crate::ports::roster::Roster;
use crate::ports::sandbox::LogSink;

use super::answer::Answer;
use super::connection::Failed;
use super::held::Held;
use super::identity::Secret;
use super::link::{Link, Ways};
use super::links::{self, Links};
use super::metrics::Metrics;
use super::tls::FleetTls;
use super::wire::{self, BuildHead, Claim, Done, Empty, IdHead, OrderHead, Refusal, Resize};

/// A worker that could not be reached, or lied, is asked again after this, or where nobody else is left.
const ASIDE_FOR: Duration = Duration::from_secs(5);
/// Where claims can't be asked for, they are not for this long: a call must not wait for the time that finding out takes.
const CLAIMS_PAUSE: Duration = Duration::from_secs(1);
/// Of how many functions the last advice is kept.
const ADVICE_MAX: usize = 4096;
/// Workers that are told something at once.
const TELL_AT_ONCE: usize = 16;
/// Workers that a new version is prepared at: those that a call without a claim chooses between.
const PREPARE_AT: usize = 2;
/// Longer than a worker tries.
const STORED_WITHIN: Duration = Duration::from_secs(90);
/// A compilation's answer: its own limit, and the way.
const BUILD_EXTRA: Duration = Duration::from_secs(60);

pub struct FleetPorts {
    pub claims: Option<Arc<dyn Claims>>,
    pub roster: Arc<dyn Roster>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub secret: Secret,
    pub tls: Option<FleetTls>,
    /// The worker of this process, if there is one: nobody calls it over the network.
    pub own: Option<WorkerId>,
}

/// See the module. Follows the roster from its creation to its end.
pub struct Fleet {
    links: Arc<Links>,
    claims: Option<Arc<dyn Claims>>,
    held: Held,
    /// Calls under way, and where.
    under: Mutex<HashMap<InvocationId, Arc<Link>>>,
    /// Calls that have ended while what they left is still on its way to the store: where the word of its arrival comes.
    being_stored: Mutex<HashMap<InvocationId, Answer>>,
    advice: Mutex<HashMap<FunctionId, (VersionKey, Arc<Advice>)>>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// Monotonic, in milliseconds.
    no_claims_until: AtomicU64,
    following: AbortHandle,
}

impl Fleet {
    /// Must be called inside a runtime.
    pub fn new(ports: FleetPorts, config: Arc<Config>) -> Arc<Self> {
        let limits = &config.limits;
        let printed = limits.output_bytes.saturating_mul(2 * ESCAPED);
        let outcome = limits.result_bytes + printed + wire::OUTCOME_BYTES;
        let ways = Ways {
            secret: ports.secret,
            tls: ports.tls,
            frame_bytes_max: outcome.max(limits.zip_bytes.saturating_mul(2)).min(u32::MAX.into()),
        };
        let heartbeat = Duration::from_millis(config.fleet.heartbeat_ms);
        let links = Arc::new(Links::new(ways, ports.own, heartbeat));
        let following = tokio::spawn(links::follow(Arc::downgrade(&links), ports.roster, ports.clock.clone()));
        Arc::new(Self {
            links,
            claims: ports.claims,
            held: Held::default(),
            under: Mutex::default(),
            being_stored: Mutex::default(),
            advice: Mutex::default(),
            clock: ports.clock,
            config,
            metrics: ports.metrics,
            no_claims_until: AtomicU64::new(0),
            following: following.abort_handle(),
        })
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A worker that has a sandbox for this version, by its word.
    async fn find_claim(&self, version: VersionKey) -> Option<(WorkerId, Claim)> {
        if let Some(worker) = self.held.take(version, self.now()) {
            return Some((worker, Claim::Held));
        }
        let claims = self.claims.as_ref()?;
        if self.now().as_millis() < u128::from(self.no_claims_until.load(Ordering::Relaxed)) {
            return None;
        }
        match claims.take(version).await {
            Ok(worker) => worker.map(|worker| (worker, Claim::Taken)),
            Err(error) => {
                tracing::debug!(%error, "claims can't be asked for");
                let until = self.now() + CLAIMS_PAUSE;
                self.no_claims_until.store(until.as_millis() as u64, Ordering::Relaxed);
                None
            }
        }
    }

    /// It did not answer, or not with what a worker answers.
    fn set_aside(&self, link: &Link, why: &Failed) {
        tracing::warn!(worker_id = %link.worker, address = link.address, error = %why, "a worker is left alone for a while");
        link.set_aside(self.now() + ASIDE_FOR);
        self.held.forget(link.worker);
    }

    fn under(&self) -> std::sync::MutexGuard<'_, HashMap<InvocationId, Arc<Link>>> {
        // Every change is one step.
        self.under.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn being_stored(&self) -> std::sync::MutexGuard<'_, HashMap<InvocationId, Answer>> {
        // Every change is one step.
        self.being_stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, version: VersionKey, outcome: &Outcome) {
        let Some(advice) = &outcome.advice else { return };
        let mut all = self.advice.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < ADVICE_MAX || all.contains_key(&version.function) {
            all.insert(version.function, (version, advice.clone()));
        }
    }
}

/// A character of what was printed may take so many in JSON.
const ESCAPED: u64 = 6;

impl Drop for Fleet {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Executor for Fleet {
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        let outcome = self.travel(&invocation, acquire_timeout, log.as_deref()).await?;
        self.note(invocation.version.key(), &outcome);
        Ok(outcome)
    }

    fn storing(&self, id: InvocationId) -> Option<Storing> {
        let mut answer = self.being_stored().remove(&id)?;
        Some(Box::pin(async move {
            match tokio::time::timeout(STORED_WITHIN, answer.next()).await {
                Ok(Ok((wire::STORED, bytes))) => wire::read_stored(&bytes).ok(),
                Ok(_) | Err(_) => None,
            }
        }))
    }

    async fn follow(&self, id: InvocationId, worker: WorkerId, log: Arc<dyn LogSink>) -> bool {
        let Some(link) = self.links.get(worker) else { return false };
        let Ok(body) = wire::body(&IdHead { id }, &[]) else { return false };
        let mut answer = match link.send(wire::FOLLOW, body).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(invocation_id = %id, worker_id = %worker, %error, "an invocation's lines can't be followed");
                return false;
            }
        };
        let mut came = false;
        while let Ok((wire::LINE, bytes)) = answer.next().await {
            let Some((stream, text)) = ask::line(&bytes) else { break };
            log.line(stream, text);
            came = true;
        }
        came
    }

    fn cancel(&self, id: InvocationId) -> bool {
        let Some(link) = self.under().get(&id).cloned() else { return false };
        tokio::spawn(async move {
            if let Err(error) = link.ask::<Done>(wire::CANCEL, &IdHead { id }).await {
                tracing::warn!(invocation_id = %id, worker_id = %link.worker, %error, "a call could not be cancelled");
            }
        });
        true
    }

    fn retire(&self, version: VersionKey) {
        let links = self.links.living();
        tokio::spawn(async move {
            for some in links.chunks(TELL_AT_ONCE) {
                // Who does not hear of it ends those sandboxes when nobody calls them.
                let told = some.iter().map(|link| link.ask::<Done>(wire::RETIRE, &version));
                futures_util::future::join_all(told).await;
            }
        });
    }

    fn advice(&self, version: VersionKey) -> Option<Arc<Advice>> {
        let all = self.advice.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&version.function).filter(|(of, _)| *of == version).map(|(_, advice)| advice.clone())
    }

    /// At those workers whom calls of it go to first.
    fn prepare(&self, version: &Version) {
        let key = version.key();
        let links = self.links.candidates(key, &[], PREPARE_AT, self.now());
        tokio::spawn(async move {
            let told = links.iter().map(|link| link.ask::<Done>(wire::PREPARE, &key));
            for failed in futures_util::future::join_all(told).await.into_iter().filter_map(Result::err) {
                tracing::debug!(error = %failed, "a worker could not be told to prepare a version");
            }
        });
    }

    /// What workers say together: of those that don't agree, whoever says most has seen the calls that need it.
    async fn resizes(&self) -> Vec<(VersionKey, u32)> {
        let mut all: HashMap<VersionKey, u32> = HashMap::new();
        for some in self.links.living().chunks(TELL_AT_ONCE) {
            let asked = some.iter().map(|link| link.ask::<Vec<Resize>>(wire::RESIZES, &Empty {}));
            for Resize { version, memory_mb } in
                futures_util::future::join_all(asked).await.into_iter().flatten().flatten()
            {
                let most = all.entry(version).or_default();
                *most = memory_mb.max(*most);
            }
        }
        all.into_iter().collect()
    }

    fn view(&self) -> Option<WorkerView> {
        None
    }

    fn others(&self) -> Vec<WorkerView> {
        self.links.views()
    }

    async fn order(&self, worker: WorkerId, order: Order) -> Result<(), OrderError> {
        let link = self.links.get(worker).ok_or(OrderError::NotFound)?;
        match link.ask::<Done>(wire::ORDER, &OrderHead { order }).await {
            Ok(Done { done: true }) => Ok(()),
            Ok(Done { done: false }) => Err(OrderError::Draining),
            Err(error) => Err(OrderError::Unreachable(error.to_string())),
        }
    }
}

#[async_trait]
impl Builder for Fleet {
    async fn build(&self, runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError> {
        let platform = |why: String| BuildError::Execute(ExecuteError::Platform(why));
        let body =
            wire::body(&BuildHead { runtime, hops: 1 }, &package).map_err(|error| platform(error.to_string()))?;
        // Any worker will do; by the package, so that the same one is not compiled everywhere.
        let key = VersionKey { function: FunctionId(uuid::Uuid::from_u128(package.len() as u128)), number: 0 };
        let mut last = BuildError::Execute(ExecuteError::Unreachable("none is known of that takes work".to_owned()));
        for link in self.links.candidates(key, &[], trip::PLACES_MAX, self.now()) {
            match self.build_at(&link, body.clone()).await {
                Ok(Ok(package)) => return Ok(package),
                Ok(Err(error @ BuildError::Rejected(_))) => return Err(error),
                Ok(Err(error)) => last = error,
                Err(failed) => {
                    self.set_aside(&link, &failed);
                    last = platform(failed.to_string());
                }
            }
        }
        Err(last)
    }
}

impl Fleet {
    async fn build_at(&self, link: &Link, body: Bytes) -> Result<Result<Bytes, BuildError>, Failed> {
        let limit = Duration::from_millis(self.config.sandbox.build_timeout_ms) + BUILD_EXTRA;
        let building = async {
            let mut answer = link.send(wire::BUILD, body).await?;
            let (kind, bytes) = answer.next().await?;
            Ok(match kind {
                wire::BUILT => Ok(bytes),
                wire::REFUSED => {
                    Err(build_error(wire::read_refusal(&bytes).map_err(|error| Failed::Refused(error.to_string()))?))
                }
                _ => return Err(Failed::Refused("a build was answered with something else".to_owned())),
            })
        };
        let late = |_| Failed::Lost(format!("no answer within {limit:?}"));
        tokio::time::timeout(limit, building).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }
}

fn build_error(refusal: Refusal) -> BuildError {
    match refusal {
        Refusal::Rejected { reason } => BuildError::Rejected(reason),
        Refusal::NoCompiler { reason } => BuildError::NoCompiler(reason),
        other => BuildError::Execute(trip::execute_error(other)),
    }
}
