//! What an operator and a probe ask: who are you, are you well, what are you doing.

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Extensions, StatusCode};
use prometheus::TextEncoder;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use crate::controller::Controller;
use crate::controller::auth::{Caller, bearer};
use crate::controller::error::{ApiError, Code};
use crate::domain::disk::Room;
use crate::domain::key::Scope;
use crate::domain::outcome::Status;
use crate::ports::address::Readiness;
use crate::ports::executor::WorkerState;

use super::{Answer, Shared, ok, peer};

/// A dependency that has not answered by then is down.
const PROBE_FOR: Duration = Duration::from_secs(2);

pub async fn root() -> Answer {
    ok(&json!({
        "name": "faasd",
        "version": env!("CARGO_PKG_VERSION"),
        "links": { "health": "/health", "ready": "/ready", "functions": "/functions", "run": "/run", "metrics": "/metrics" },
    }))
}

pub async fn health() -> Answer {
    ok(&json!({ "status": "ok" }))
}

/// 503 when something that calls need is down.
pub async fn ready(State(controller): Shared) -> Answer {
    let (all, body) = look(&controller).await;
    super::json(if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

#[async_trait]
impl Readiness for Controller {
    async fn is_ready(&self) -> bool {
        look(self).await.0
    }
}

/// Whether all that calls need is up, and what is said of it.
async fn look(controller: &Controller) -> (bool, Value) {
    let store = probe(controller, async { controller.keys.store().list().await.map(drop) }).await;
    let queue = probe(controller, async { controller.queue.backlog().await.map(drop) }).await;
    let (up, executor) = executor(controller);
    let draining = controller.is_draining();
    let all = store.0 && queue.0 && up != Some(false) && !draining;
    let mut dependencies = json!({ "store": store.1, "queue": queue.1, "executor": executor });
    let mut degraded = up.is_none();
    if let Some(roster) = &controller.roster {
        let probed = probe(controller, async { roster.workers().await.map(drop) }).await;
        degraded |= !probed.0;
        dependencies["roster"] = probed.1;
    }
    if let Some(reach) = controller.bus.reach() {
        degraded |= !reach.is_up;
        let status = if reach.is_up { "up" } else { "down" };
        let latency_ms = reach.latency.unwrap_or_default().as_secs_f64() * 1000.0;
        dependencies["news"] = json!({ "status": status, "latencyMs": latency_ms });
    }
    let room = controller.disk.room();
    degraded |= room == Room::Full;
    let disk = if room == Room::Full { "degraded" } else { "up" };
    dependencies["disk"] = json!({ "status": disk, "latencyMs": 0.0, "room": room.as_str() });
    let status = match (all, draining) {
        (true, _) if degraded => "degraded",
        (true, _) => "ready",
        (false, true) => "draining",
        (false, false) => "unready",
    };
    (all, json!({ "status": status, "dependencies": dependencies }))
}

/// Whether calls can be run; `None`: not now, but they are taken, and wait in the queue.
fn executor(controller: &Controller) -> (Option<bool>, Value) {
    let own = controller.executor.view();
    let others = controller.executor.others();
    let active = own.iter().chain(&others).filter(|view| view.state == WorkerState::Active && view.capacity > 0);
    let (workers, capacity) = active.fold((0_u32, 0_u32), |(n, sum), view| (n + 1, sum.saturating_add(view.capacity)));
    let up = if workers > 0 { Some(true) } else { own.map(|_| false) };
    let status = match up {
        Some(true) => "up",
        Some(false) => "down",
        None => "degraded",
    };
    (up, json!({ "status": status, "latencyMs": 0.0, "capacity": capacity, "workers": workers }))
}

async fn probe<E: std::fmt::Display>(
    controller: &Controller,
    ask: impl Future<Output = Result<(), E>>,
) -> (bool, Value) {
    let began = controller.clock.monotonic();
    let answer = tokio::time::timeout(PROBE_FOR, ask).await;
    let latency_ms = controller.clock.monotonic().saturating_sub(began).as_secs_f64() * 1000.0;
    let up = matches!(answer, Ok(Ok(())));
    if let Ok(Err(error)) = answer {
        tracing::warn!(%error, "a dependency does not answer its probe");
    }
    (up, json!({ "status": if up { "up" } else { "down" }, "latencyMs": latency_ms }))
}

pub async fn status(State(controller): Shared, caller: Caller) -> Answer {
    caller.require(Scope::Admin)?;
    let backlog = controller.queue.backlog().await?;
    let functions = controller.functions.registry().count(None).await?;
    let mut invocations: Map<String, Value> = Status::ALL
        .into_iter()
        .filter(|status| status.is_final())
        .map(|status| (status.as_str().to_owned(), controller.metrics.finished(status).into()))
        .collect();
    invocations.insert("RUNNING".to_owned(), controller.calls_running().into());
    ok(&json!({
        "name": "faasd",
        "version": env!("CARGO_PKG_VERSION"),
        "role": controller.config.role,
        "uptimeMs": (controller.clock.monotonic().saturating_sub(controller.started)).as_millis() as u64,
        "draining": controller.is_draining(),
        "workers": controller.workers(),
        "queue": backlog,
        "functions": functions,
        // Of synchronous calls: what became of the others is in the records and in the worker's metrics.
        "syncInvocations": invocations,
        "asyncAccepted": controller.metrics.async_accepted.get(),
    }))
}

/// Prometheus text. Open to loopback; from elsewhere with the scrape token or a key that may read.
pub async fn metrics(State(controller): Shared, headers: HeaderMap, extensions: Extensions) -> Answer {
    let peer = peer(&extensions);
    // Through a trusted proxy on this machine the world is not loopback.
    let loopback = peer.is_some() && controller.keys.address(&headers, peer).is_loopback();
    if !loopback && !carries_token(&controller, &headers) {
        let principal = controller.keys.authenticate(&headers, peer, controller.clock.monotonic()).await?;
        if !principal.allows(Scope::Read) {
            return Err(ApiError::new(Code::Forbidden, "this needs a key with the scope read; ask an admin for one"));
        }
    }
    controller.metrics.sync_inflight.set(controller.calls_running() as i64);
    // A queue that does not answer leaves its numbers as they were: the rest is wanted all the more then.
    match tokio::time::timeout(PROBE_FOR, controller.queue.backlog()).await {
        Ok(Ok(backlog)) => controller.metrics.observe(&backlog),
        Ok(Err(error)) => tracing::warn!(%error, "the queue does not say what waits"),
        Err(_) => tracing::warn!(waited_ms = PROBE_FOR.as_millis() as u64, "the queue does not say what waits"),
    }
    let text = TextEncoder::new().encode_to_string(&controller.prometheus.gather()).map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        ApiError::new(Code::InternalError, "the metrics could not be written; the log says why")
    })?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}

fn carries_token(controller: &Controller, headers: &HeaderMap) -> bool {
    let token = controller.config.http.metrics_token.as_bytes();
    !token.is_empty() && bearer(headers).is_some_and(|sent| sent.ct_eq(token).into())
}
