//! `POST /run`: synchronous, asynchronous or as a stream. The synchronous path is the one that must be fast: the body is parsed
//! once, `inputData` stays the bytes it came as, and the answer is written once.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::controller::accept::Acceptance;
use crate::controller::auth::Caller;
use crate::controller::dispatch::Durability;
use crate::controller::error::ApiError;
use crate::controller::feed::Ended;
use crate::controller::idempotency::{self, Once};
use crate::controller::{Controller, body};
use crate::domain::ids::InvocationId;
use crate::domain::invocation::{Invocation, Mode, StoredRecord};
use crate::domain::key::Scope;
use crate::domain::limits::KIB;
use crate::domain::outcome::Status;
use crate::ports::invocations::Idempotency;

use super::{Answer, Shared, id_header, json, params};

const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-faasd-function-error");
/// What a body may have beside its `inputData`.
const ENVELOPE_BYTES: u64 = 64 * KIB;
const MODEL_ID_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunRequest<'a> {
    #[serde(borrow, default)]
    function_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, alias = "functionName")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    input_data: Option<&'a RawValue>,
    #[serde(default)]
    model_id: Option<String>,
}

/// How the answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Answer,
    Stream,
    Accept,
}

pub async fn run(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    answer(&controller, caller, request).await
}

pub async fn answer(controller: &Arc<Controller>, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Invoke)?;
    let (Parts { headers, .. }, body) = request.into_parts();
    let wish = wish(&headers)?;
    let invocation = read(controller, &caller, &headers, body, wish).await?;
    let idempotency = idempotency::read(&headers, &caller, &invocation)?;
    match (wish, idempotency) {
        (Wish::Accept, idempotency) => {
            let with = Acceptance { idempotency, ..Acceptance::default() };
            let accepting = controller.clone();
            let id = controller.to_the_end(async move { accepting.accept(invocation, with).await }).await?;
            accepted(id)
        }
        (wish, Some(idempotency)) => once(controller, caller, invocation, idempotency, wish).await,
        (wish, None) => now(controller, Arc::new(invocation), wish).await,
    }
}

/// Runs it, unkeyed: nothing waits between the claim and the start, so nothing can be left half-way.
async fn now(controller: &Arc<Controller>, invocation: Arc<Invocation>, wish: Wish) -> Answer {
    let pass = controller.admit()?;
    let limit = controller.wait_limit(&invocation);
    let Some(feed) = controller.claim(&invocation) else {
        return Err(ApiError::invalid("this invocation runs already"));
    };
    if wish == Wish::Stream {
        feed.follow();
    }
    let call = controller.start(feed, invocation, Durability::Soon, pass);
    match wish {
        Wish::Stream => Ok(stream(controller, &call.feed.clone())),
        _ => ended(call.wait(limit).await),
    }
}

async fn once(
    controller: &Arc<Controller>,
    caller: Caller,
    invocation: Invocation,
    idempotency: Idempotency,
    wish: Wish,
) -> Answer {
    let pass = controller.admit()?;
    let again = invocation.clone();
    let starting = controller.clone();
    let started = controller
        .to_the_end(async move { starting.start_once(Arc::new(invocation), idempotency, pass).await })
        .await?;
    match (started, wish) {
        (Once::Started(call), Wish::Stream) => Ok(stream(controller, &call.feed)),
        (Once::Started(call), _) => ended(call.wait(controller.wait_limit(&again)).await),
        (Once::Earlier(id), Wish::Stream) => {
            let mut response = controller.events(&caller, id, 0).await?;
            response.headers_mut().insert(super::REQUEST_ID, id_header(id));
            Ok(response)
        }
        (Once::Earlier(id), _) => {
            let waiting = controller.clone();
            ended(controller.to_the_end(async move { waiting.await_earlier(id, &again).await }).await)
        }
    }
}

fn stream(controller: &Arc<Controller>, feed: &Arc<crate::controller::feed::Feed>) -> Response {
    let mut response = controller.stream(feed.clone(), 0);
    response.headers_mut().insert(super::REQUEST_ID, id_header(feed.id()));
    response
}

async fn read(
    controller: &Controller,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    wish: Wish,
) -> Result<Invocation, ApiError> {
    let limits = &controller.config.limits;
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let most = limits.sync_payload_bytes.saturating_add(ENVELOPE_BYTES);
    let bytes = body::read(headers, body, most, within, "the body").await?;
    let request: RunRequest<'_> = body::object(&bytes)?;
    let name = request.function_id.as_deref().or(request.name.as_deref());
    let name = name.ok_or_else(|| ApiError::invalid("the body must name a function: functionId or name"))?;
    if request.model_id.as_ref().is_some_and(|model| model.len() > MODEL_ID_BYTES_MAX) {
        return Err(ApiError::invalid(format!("modelId must have at most {MODEL_ID_BYTES_MAX} bytes")));
    }
    let payload = match request.input_data {
        Some(raw) => bytes.slice_ref(raw.get().as_bytes()),
        None => Bytes::from_static(b"null"),
    };
    if payload.len() as u64 > limits.sync_payload_bytes {
        return Err(ApiError::too_large("inputData", limits.sync_payload_bytes));
    }
    let current = controller.functions.find(caller, name, controller.clock.monotonic()).await?;
    Ok(Invocation {
        id: caller.request_id,
        version: current.version.clone(),
        payload,
        model_id: request.model_id,
        attempt: 1,
        accepted_at: controller.clock.now(),
        mode: if wish == Wish::Accept { Mode::Async } else { Mode::Sync },
    })
}

fn wish(headers: &HeaderMap) -> Result<Wish, ApiError> {
    match params::header(headers, "x-async")? {
        Some(yes) if yes.eq_ignore_ascii_case("true") || yes == "1" => return Ok(Wish::Accept),
        Some(no) if !(no.eq_ignore_ascii_case("false") || no == "0" || no.is_empty()) => {
            return Err(ApiError::invalid(format!("x-async must be true or false, not {}", params::quoted(no))));
        }
        _ => {}
    }
    let streamed = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let streamed = streamed.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/event-stream"));
    Ok(if streamed { Wish::Stream } else { Wish::Answer })
}

/// What the function did is 200, and a header where that was not success.
fn ended(ended: Ended) -> Answer {
    let stored = ended?;
    let mut response = Response::new(Body::from(written(&stored)?));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(super::REQUEST_ID, id_header(stored.record.request_id));
    if stored.record.status != Status::Success {
        let what = stored.record.error_type.map_or(stored.record.status.as_str(), |kind| kind.as_str());
        headers.insert(FUNCTION_ERROR, HeaderValue::from_static(what));
    }
    Ok(response)
}

fn written(stored: &StoredRecord) -> Result<Bytes, ApiError> {
    stored.json().map_err(|error| {
        let id = stored.record.request_id;
        tracing::error!(invocation_id = %id, %error, "a record could not be written as JSON");
        ApiError::new(
            crate::controller::error::Code::InternalError,
            "the answer could not be written; tell the operator",
        )
    })
}

pub fn accepted(id: InvocationId) -> Answer {
    let mut response =
        json(StatusCode::ACCEPTED, &serde_json::json!({ "status": "ACCEPTED", "jobId": id, "requestId": id }))?;
    response.headers_mut().insert(super::REQUEST_ID, id_header(id));
    Ok(response)
}
