//! What a worker listens with: HTTP/2 for the controllers of its fleet, HTTP/1 for who asks how it is.
//!
//! Nothing of a request is read before its proof holds, and nothing that it says is believed for the proof alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version as Http, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::domain::function::Version;
use crate::domain::ids::{VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::limits::Limits;
use crate::domain::outcome::Outcome;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::executor::{ExecuteError, Host, LogSinks, WorkerState};
use crate::ports::registry::Registry;
use crate::ports::sandbox::LogSink;

use super::alone::Heard;
use super::called::{Ending, Reading, Reply, Told};
use super::identity::{Peer, Secret, sha256};
use super::ledger::{Change, Ledger};
use super::metrics::Metrics;
use super::taps::Taps;
use super::wire::{
    self, After, BuildHead, CallHead, Claim, Done, Empty, IdHead, Malformed, OrderHead, Refusal, Resize,
};

mod listen;

pub use listen::serve;

/// Versions remembered; they never change. The next one empties the memory.
const VERSIONS_MAX: usize = 20_000;
/// Bodies of more than a little in memory at once, in KiB.
const BODIES_KIB_MAX: usize = 512 * 1024;
const SMALL_BODY: u64 = 64 * 1024;
const MODEL_BYTES_MAX: usize = 256;
/// Longer than any controller waits.
const ACQUIRE_MAX: Duration = Duration::from_secs(3600);

/// Who may see the metrics from elsewhere than loopback, and how long a body may take.
pub struct Access {
    /// Empty: nobody.
    pub metrics_token: String,
    pub body_timeout: Duration,
}

pub struct Server {
    pub(super) host: Arc<dyn Host>,
    pub(super) worker: WorkerId,
    registry: Arc<dyn Registry>,
    versions: Mutex<HashMap<VersionKey, Arc<Version>>>,
    ledger: Mutex<Ledger>,
    secret: Secret,
    limits: Limits,
    access: Access,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    heard: Arc<Heard>,
    prometheus: prometheus::Registry,
    bodies: Arc<Semaphore>,
    taps: Arc<Taps>,
}

type Answer = Response<Reply>;

impl Server {
    #[allow(clippy::too_many_arguments, reason = "each is a part of what a worker is, used once, at its start")]
    pub fn new(
        host: Arc<dyn Host>,
        worker: WorkerId,
        registry: Arc<dyn Registry>,
        secret: Secret,
        limits: Limits,
        access: Access,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        heard: Arc<Heard>,
        prometheus: prometheus::Registry,
    ) -> Arc<Self> {
        let taps = Arc::new(Taps::new(metrics.lines_dropped.clone()));
        Arc::new(Self {
            host,
            worker,
            registry,
            versions: Mutex::default(),
            ledger: Mutex::default(),
            secret,
            limits,
            access,
            clock,
            metrics,
            heard,
            prometheus,
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            taps,
        })
    }

    /// Who hears what asynchronous invocations print here, while the server is.
    pub fn listeners(&self) -> Weak<dyn LogSinks> {
        Arc::downgrade(&(self.taps.clone() as Arc<dyn LogSinks>))
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Counts: a wrong one is put right by the next round.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        self.ledger().reconcile(&self.host.idle(), self.clock.monotonic())
    }

    /// How long until a sandbox that was left to a controller is anybody's again.
    pub(super) fn next_free(&self) -> Option<Duration> {
        let at = self.ledger().next_free()?;
        Some(at.saturating_sub(self.clock.monotonic()))
    }

    pub(super) async fn answer(self: &Arc<Self>, peer: &Peer, from: SocketAddr, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if path.starts_with("/fleet/") && request.version() == Http::HTTP_2 && request.method() == Method::POST {
            return self.called(peer, request).await;
        }
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/health") => {
                text(StatusCode::OK, "application/json", "{\"status\":\"ok\"}")
            }
            (&Method::GET | &Method::HEAD, "/ready") => self.ready(),
            (&Method::GET, "/metrics") => self.shown(from.ip(), request.headers()),
            _ => text(
                StatusCode::NOT_FOUND,
                "application/json",
                "{\"error\":\"this is a worker: it has /health, /ready and /metrics; the API is at a controller\",\"code\":\"RouteNotFound\"}",
            ),
        }
    }

    fn ready(&self) -> Answer {
        let state = self.host.view().map_or(WorkerState::Draining, |view| view.state);
        let (status, word) = match state {
            WorkerState::Active => (StatusCode::OK, "ready"),
            WorkerState::Cordoned => (StatusCode::SERVICE_UNAVAILABLE, "cordoned"),
            WorkerState::Draining | WorkerState::Dead => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        };
        let mut body = serde_json::json!({ "status": word });
        if self.heard.is_alone() {
            body["reason"] = "nobody of the fleet is heard: no roster, no queue, no controller".into();
        }
        text(status, "application/json", body.to_string())
    }

    fn shown(&self, from: IpAddr, headers: &HeaderMap) -> Answer {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let token = self.access.metrics_token.as_bytes();
        let knows = !token.is_empty() && bearer.is_some_and(|sent| sent.as_bytes().ct_eq(token).into());
        if !from.to_canonical().is_loopback() && !knows {
            return plain(StatusCode::UNAUTHORIZED);
        }
        match prometheus::TextEncoder::new().encode_to_string(&self.prometheus.gather()) {
            Ok(metrics) => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
            Err(error) => {
                tracing::error!(%error, "the metrics could not be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    async fn called(self: &Arc<Self>, peer: &Peer, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let told = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        if told(wire::VERSION_HEADER) != Some(wire::VERSION) {
            return plain(StatusCode::UPGRADE_REQUIRED);
        }
        let path = head.uri.path();
        if path == wire::HELLO {
            return self.hello(peer, told(wire::HELLO_HEADER));
        }
        let mut digest = [0; 32];
        let digested = told(wire::DIGEST_HEADER).is_some_and(|text| hex::decode_to_slice(text, &mut digest).is_ok());
        let session = peer.session().filter(|_| digested).zip(told(wire::PROOF_HEADER));
        if !session.is_some_and(|(session, proof)| session.accepts(proof, head.method.as_str(), path, &digest)) {
            self.metrics.unauthorised.inc();
            return plain(StatusCode::UNAUTHORIZED);
        }
        self.heard.somebody();
        let most = wire::HEAD_BYTES_MAX as u64
            + match path {
                wire::EXECUTE => self.limits.sync_payload_bytes,
                wire::BUILD => self.limits.zip_bytes,
                _ => 0,
            };
        let length = told("content-length").and_then(|text| text.parse().ok()).unwrap_or(most);
        if length > most {
            return plain(StatusCode::PAYLOAD_TOO_LARGE);
        }
        // What a large one takes is given back when its call is over.
        let room = match length > SMALL_BODY {
            true => self.bodies.clone().acquire_many_owned(length.div_ceil(1024) as u32).await.ok(),
            false => None,
        };
        let reading = Limited::new(body, most as usize).collect();
        let body = match tokio::time::timeout(self.access.body_timeout, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
        };
        if sha256(&body) != digest {
            self.metrics.unauthorised.inc();
            return plain(StatusCode::UNAUTHORIZED);
        }
        let path = path.to_owned();
        let answer = self.routed(&path, body, room).await;
        answer.unwrap_or_else(|malformed| {
            tracing::warn!(path, error = %malformed, "a controller sent what can't be read");
            plain(StatusCode::BAD_REQUEST)
        })
    }

    fn hello(&self, peer: &Peer, nonce: Option<&str>) -> Answer {
        let mut client = [0; 32];
        let greeted = nonce
            .filter(|text| hex::decode_to_slice(text, &mut client).is_ok())
            .and_then(|_| peer.greet(&self.secret, &client));
        let Some((server, session)) = greeted else { return plain(StatusCode::BAD_REQUEST) };
        let mut answer = plain(StatusCode::OK);
        for (name, text) in [(wire::HELLO_HEADER, hex::encode(server)), (wire::PROOF_HEADER, session.greeting())] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }

    async fn routed(
        self: &Arc<Self>,
        path: &str,
        body: Bytes,
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<Answer, Malformed> {
        match path {
            wire::EXECUTE => {
                let (head, payload) = wire::parts::<CallHead>(body, wire::HEAD_BYTES_MAX)?;
                Ok(Response::new(self.execute(head, payload, room).await))
            }
            wire::BUILD => {
                let (head, package) = wire::parts::<BuildHead>(body, wire::HEAD_BYTES_MAX)?;
                Ok(Response::new(Reply::Whole(Some(self.build(head, package).await))))
            }
            wire::WITHDRAW => {
                let head = only::<IdHead>(body)?;
                Ok(done(self.host.withdraw(head.id)))
            }
            wire::CANCEL => {
                let head = only::<IdHead>(body)?;
                Ok(done(self.host.cancel(head.id)))
            }
            wire::FOLLOW => {
                let head = only::<IdHead>(body)?;
                Ok(Response::new(match self.taps.follow(head.id) {
                    Some(told) => Reading::following(told),
                    None => Reply::Whole(Some(wire::frame(wire::OVER, &[]))),
                }))
            }
            wire::RETIRE => {
                self.host.retire(only::<VersionKey>(body)?);
                Ok(done(true))
            }
            wire::PREPARE => {
                let key = only::<VersionKey>(body)?;
                // One that is not there, or can't be read now, is found out by its first call.
                let version = self.version(key).await.ok().flatten();
                if let Some(version) = &version {
                    self.host.prepare(version);
                }
                Ok(done(version.is_some()))
            }
            wire::RESIZES => {
                only::<Empty>(body)?;
                let all = self.host.resizes().await.into_iter().take(wire::RESIZES_MAX);
                let all: Vec<Resize> = all.map(|(version, memory_mb)| Resize { version, memory_mb }).collect();
                Ok(told(&all))
            }
            wire::ORDER => {
                let head = only::<OrderHead>(body)?;
                Ok(done(self.host.order(self.worker, head.order).await.is_ok()))
            }
            _ => Ok(plain(StatusCode::NOT_FOUND)),
        }
    }

    async fn execute(
        self: &Arc<Self>,
        head: CallHead,
        payload: Bytes,
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Reply {
        let invocation = match self.invocation(&head, payload).await {
            Ok(invocation) => Arc::new(invocation),
            Err(reason) => {
                self.metrics.served.with_label_values(&["refused"]).inc();
                return Reply::Whole(Some(wire::refused(Refusal::Platform { reason })));
            }
        };
        self.ledger().used(head.version(), head.claim);
        let told = Told::new(head.lines);
        let reading = Reading::new(told.clone(), self.host.clone(), head.id);
        let server = self.clone();
        // It goes on when its controller is gone; the worker's drain waits for it.
        tokio::spawn(async move {
            let ending = Ending(told.clone());
            let sink: Arc<dyn LogSink> = told;
            let executed = match head.claim {
                Claim::None => {
                    let acquire = Duration::from_millis(head.acquire_ms).min(ACQUIRE_MAX);
                    server.host.execute(invocation, acquire, Some(sink)).await
                }
                Claim::Taken | Claim::Held => server.host.execute_idle(invocation, Some(sink)).await,
            };
            drop(room);
            let storing = executed.as_ref().ok().and_then(|_| server.host.storing(head.id));
            let outcome = server.last_frame(&head, executed, storing.is_some());
            match storing {
                None => ending.0.end(outcome),
                Some(storing) => {
                    ending.0.tell(&outcome);
                    // A worker that can't say ends without the word: then each is looked for.
                    if let Some(lost) = storing.await {
                        ending.0.end(wire::stored(&lost));
                    }
                }
            }
        });
        reading.begun().await
    }

    fn last_frame(&self, head: &CallHead, executed: Result<Outcome, ExecuteError>, storing: bool) -> Bytes {
        match executed {
            Ok(outcome) => {
                self.metrics.served.with_label_values(&["ended"]).inc();
                let idle = self.host.idle_of(head.version());
                let kept = idle > 0 && self.ledger().keep(head.version(), idle, self.clock.monotonic());
                wire::outcome(head.id, head.attempt, self.worker, After { kept, storing }, outcome)
            }
            Err(error) => {
                let end = match error {
                    ExecuteError::Stale => "stale",
                    ExecuteError::Withdrawn => "withdrawn",
                    _ => "refused",
                };
                self.metrics.served.with_label_values(&[end]).inc();
                wire::refused(error)
            }
        }
    }

    /// What is asked for, if it can be: a controller may be older, or hostile.
    async fn invocation(&self, head: &CallHead, payload: Bytes) -> Result<Invocation, String> {
        if head.hops > wire::HOPS_MAX {
            return Err("the call was sent on more often than may be".to_owned());
        }
        if head.attempt == 0 || head.model.as_ref().is_some_and(|model| model.len() > MODEL_BYTES_MAX) {
            return Err("the call's head has impossible values".to_owned());
        }
        if serde_json::from_slice::<&serde_json::value::RawValue>(&payload).is_err() {
            return Err("the call's input is not JSON".to_owned());
        }
        let version = self.version(head.version()).await.map_err(|error| error.to_string())?;
        let version = version.ok_or("the function's version is gone")?;
        let now = self.clock.now();
        Ok(Invocation {
            id: head.id,
            version,
            payload,
            model_id: head.model.clone(),
            attempt: head.attempt,
            accepted_at: crate::domain::time::Timestamp(now.as_millis().saturating_sub(head.age_ms)),
            mode: head.mode,
        })
    }

    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError> {
        let known = || self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = known().get(&key) {
            return Ok(Some(version.clone()));
        }
        let version = self.registry.version(key).await?;
        if let Some(version) = &version {
            let mut known = known();
            if known.len() >= VERSIONS_MAX {
                known.clear();
            }
            known.insert(key, version.clone());
        }
        Ok(version)
    }

    async fn build(&self, head: BuildHead, package: Bytes) -> Bytes {
        if head.hops > wire::HOPS_MAX {
            return wire::refused(Refusal::Platform {
                reason: "the build was sent on more often than may be".to_owned(),
            });
        }
        match self.host.build(head.runtime, package).await {
            Ok(package) => wire::frame(wire::BUILT, &package),
            Err(error) => wire::refused(error),
        }
    }
}

/// The head of a body that is nothing else.
fn only<T: for<'a> Deserialize<'a> + Serialize>(body: Bytes) -> Result<T, Malformed> {
    match wire::parts(body, wire::HEAD_BYTES_MAX)? {
        (head, rest) if rest.is_empty() => Ok(head),
        _ => Err(Malformed("it has more than a head")),
    }
}

fn done(done: bool) -> Answer {
    told(&Done { done })
}

fn told(what: &impl Serialize) -> Answer {
    Response::new(Reply::Whole(serde_json::to_vec(what).ok().map(Bytes::from)))
}

fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(Reply::Whole(None));
    *answer.status_mut() = status;
    answer
}

fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Reply::Whole(Some(text.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
