//! Routes, and what every request passes: an id, the key, the rate limit, one form for failures, and the counters.

pub mod audit;
pub mod dead_letters;
pub mod functions;
pub mod invocations;
pub mod keys;
pub mod logs;
pub mod params;
pub mod run;
pub mod system;
pub mod upload;
pub mod workers;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, Method, StatusCode};
use serde::Serialize;

use crate::domain::audit::{Action, Object};
use crate::domain::ids::InvocationId;
use crate::domain::key::Scope;
use crate::domain::rate::Grant;

use super::Controller;
use super::audit::{self as auditing, Changed};
use super::auth::Caller;
use super::error::{ApiError, Code, Refused, render};
use super::ids;
use super::rate;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a handler answers, or why not.
pub type Answer = Result<Response, ApiError>;
type Shared = State<Arc<Controller>>;

/// The whole API, as `/x` and as `/api/x`.
pub fn router(controller: Arc<Controller>) -> Router {
    let guarded = guarded().route_layer(middleware::from_fn_with_state(controller.clone(), authenticate));
    let routes = open().merge(guarded);
    Router::new()
        .merge(routes.clone())
        .nest("/api", routes)
        .route("/api/", get(system::root))
        .fallback(async || ApiError::new(Code::RouteNotFound, "there is no such route; GET / lists where to look"))
        .method_not_allowed_fallback(async || {
            ApiError::new(
                Code::MethodNotAllowed,
                "this route does not take that method; the Allow header names those it takes",
            )
        })
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(controller.clone(), observe))
        .with_state(controller)
}

fn open() -> Router<Arc<Controller>> {
    Router::new()
        .route("/", get(system::root))
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .route("/metrics", get(system::metrics))
}

fn guarded() -> Router<Arc<Controller>> {
    Router::new()
        .route("/run", post(run::run))
        .route("/upload", post(upload::upload))
        .route("/functions", get(functions::list).post(functions::create))
        .route(
            "/functions/{id}",
            get(functions::show).put(functions::replace).patch(functions::change).delete(functions::delete),
        )
        .route("/functions/{id}/versions", get(functions::versions))
        .route("/functions/{id}/logs", get(logs::of_function))
        .route("/functions/{id}/logs/{request}", get(logs::full_text))
        .route("/logs", get(logs::all))
        .route("/status/{id}", get(invocations::show))
        .route("/invocations/{id}", get(invocations::show).delete(invocations::cancel))
        .route("/invocations/{id}/events", get(invocations::events))
        .route("/invocations/{id}/files/{*name}", get(invocations::file))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/{id}/replay", post(dead_letters::replay))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/audit", get(audit::list))
        .route("/worker/heartbeat", post(workers::heartbeat))
        .route("/workers", get(workers::list))
        .route("/workers/{id}/cordon", post(workers::cordon))
        .route("/workers/{id}/uncordon", post(workers::uncordon))
        .route("/workers/{id}/drain", post(workers::drain))
        .route("/system/status", get(system::status))
}

/// Whether this is the one request that must be fast: it passes the router by.
pub fn is_run(request: &Request) -> bool {
    request.method() == Method::POST && matches!(request.uri().path(), "/run" | "/api/run")
}

/// `POST /run` without the router's layers, to the same effect.
pub async fn run_at_once(controller: &Arc<Controller>, request: Request, peer: IpAddr) -> Response {
    let began = controller.clock.monotonic();
    let request_id = ids::invocation_id(controller.now());
    let response = match admit(controller, request.headers(), Some(peer), request_id).await {
        Ok((caller, grant)) => {
            let answer = match caller.require(Scope::Invoke) {
                Ok(()) => run::answer(controller, caller, request).await.into_response(),
                Err(error) => refused(controller, caller, &request, Some(peer), error.into_response()),
            };
            with_grant(controller, answer, grant)
        }
        Err(response) => response,
    };
    let response = finish(response, request_id);
    if response.status() == StatusCode::OK {
        controller.metrics.run_ok.inc();
        controller.metrics.run_latency.observe((controller.clock.monotonic() - began).as_secs_f64());
    } else {
        count(controller, "/run", "POST", &response, began);
    }
    response
}

/// Every request: gives it an id, gives failures their form, counts.
async fn observe(State(controller): Shared, mut request: Request, next: Next) -> Response {
    let began = controller.clock.monotonic();
    let request_id = ids::invocation_id(controller.now());
    request.extensions_mut().insert(RequestId(request_id));
    let path = request.extensions().get::<MatchedPath>().cloned();
    let method = method_label(request.method());
    let response = finish(next.run(request).await, request_id);
    let template = path.as_ref().map_or("unknown", |path| template(path.as_str()));
    count(&controller, template, method, &response, began);
    response
}

fn finish(response: Response, request_id: InvocationId) -> Response {
    let mut response = render(response, request_id);
    if let http::header::Entry::Vacant(entry) = response.headers_mut().entry(REQUEST_ID) {
        entry.insert(id_header(request_id));
    }
    response
}

fn count(controller: &Controller, route: &str, method: &str, response: &Response, began: std::time::Duration) {
    let metrics = &controller.metrics;
    metrics.requests.with_label_values(&[route, method, response.status().as_str()]).inc();
    let took = controller.clock.monotonic().saturating_sub(began);
    metrics.latency.with_label_values(&[route, method]).observe(took.as_secs_f64());
    if let Some(Refused(code)) = response.extensions().get() {
        metrics.rejected.with_label_values(&[code.as_str()]).inc();
    }
}

fn template(path: &str) -> &str {
    match path.strip_prefix("/api") {
        Some("" | "/") => "/",
        Some(rest) => rest,
        None => path,
    }
}

/// Methods come from the network: only known ones become labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[derive(Clone, Copy)]
struct RequestId(InvocationId);

async fn authenticate(State(controller): Shared, mut request: Request, next: Next) -> Response {
    let request_id = match request.extensions().get() {
        Some(RequestId(id)) => *id,
        None => ids::invocation_id(controller.now()),
    };
    let peer = peer(request.extensions());
    let (caller, grant) = match admit(&controller, request.headers(), peer, request_id).await {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", |path| template(path.as_str()));
    let action = auditing::action(request.method(), route);
    request.extensions_mut().insert(caller.clone());
    let about = about(&controller, caller, &request, peer);
    let response = match action {
        Some(action) => controller.audited(action, about, next.run(request)).await,
        None => {
            let response = next.run(request).await;
            if response.status() == StatusCode::FORBIDDEN {
                controller.refused(Action::Access, &about, &response);
            }
            response
        }
    };
    with_grant(&controller, response, grant)
}

/// Who is at the other end of the connection; `None` where there is none.
pub fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

/// A call that its caller may not make.
fn refused(
    controller: &Arc<Controller>,
    caller: Caller,
    request: &Request,
    peer: Option<IpAddr>,
    response: Response,
) -> Response {
    controller.refused(Action::Access, &about(controller, caller, request, peer), &response);
    response
}

fn about(controller: &Controller, caller: Caller, request: &Request, peer: Option<IpAddr>) -> auditing::Request {
    auditing::Request::new(caller, controller.keys.address(request.headers(), peer), request.uri().path())
}

/// The caller behind the key or token, if the rate limit lets it pass.
async fn admit(
    controller: &Arc<Controller>,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    request_id: InvocationId,
) -> Result<(Caller, Option<Grant>), Response> {
    let now = controller.clock.monotonic();
    let principal = controller.keys.authenticate(headers, peer, now).await.map_err(|error| {
        if matches!(error.code, Code::Unauthorized | Code::TooManyFailures) {
            controller.metrics.auth_failures.inc();
            controller.unauthenticated(controller.keys.address(headers, peer), request_id, error.code);
        }
        error.into_response()
    })?;
    let grant = match &controller.limiter {
        Some(limiter) => Some(limiter.take(&principal.allowance, now).await),
        None => None,
    };
    if let Some(refused) = grant.filter(|grant| !grant.allowed) {
        controller.metrics.rate_limited.inc();
        return Err(with_grant(controller, rate::refusal(refused).into_response(), grant));
    }
    Ok((Caller { principal, request_id }, grant))
}

/// Says what was changed, for the audit log.
pub fn changed(mut answer: Response, action: Action, object: Object) -> Response {
    answer.extensions_mut().insert(Changed { action, object });
    answer
}

fn with_grant(controller: &Controller, mut response: Response, grant: Option<Grant>) -> Response {
    if let (Some(limiter), Some(grant)) = (&controller.limiter, grant) {
        limiter.write_headers(response.headers_mut(), grant);
    }
    response
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    /// Present behind `authenticate` only.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::new(Code::InternalError, "this route has no caller; tell the operator");
        parts.extensions.get::<Caller>().cloned().ok_or_else(missing)
    }
}

pub fn id_header(id: InvocationId) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.0.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A JSON answer, serialised once.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer(&mut bytes, value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        ApiError::new(Code::InternalError, "the answer could not be written; tell the operator")
    })?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

pub fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}
