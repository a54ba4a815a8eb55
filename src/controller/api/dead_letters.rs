//! `/dead-letters`: jobs that were given up, to look at and to run again.

use axum::extract::{Path, State};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::controller::accept::Acceptance;
use crate::controller::auth::Caller;
use crate::controller::error::{ApiError, Code, function_not_found};
use crate::controller::{Controller, ids};
use crate::domain::audit::{Action, Object};
use crate::domain::ids::{FunctionId, InvocationId, Owner};
use crate::domain::invocation::{Invocation, Mode};
use crate::domain::job::{DeadLetter, Payload};
use crate::domain::key::Scope;
use crate::domain::time::Timestamp;

use super::{Answer, Shared, changed, id_header, json, ok, params};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    request_id: InvocationId,
    job_id: InvocationId,
    function_id: FunctionId,
    version: u32,
    owner: &'a Owner,
    attempts: u32,
    reason: &'a str,
    accepted_at: Timestamp,
    died_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
    payload_bytes: Option<u64>,
    /// Only where one letter is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_data: Option<Box<RawValue>>,
}

impl<'a> View<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        let job = &letter.job;
        Self {
            request_id: job.invocation,
            job_id: job.invocation,
            function_id: job.version.function,
            version: job.version.number,
            owner: &job.owner,
            attempts: letter.attempts,
            reason: &letter.reason,
            accepted_at: job.accepted_at,
            died_at: letter.died_at,
            model_id: job.model_id.as_deref(),
            payload_bytes: match &job.payload {
                Payload::Inline(bytes) => Some(bytes.len() as u64),
                Payload::Stored(_) => None,
            },
            input_data: None,
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

pub async fn list(State(controller): Shared, caller: Caller, uri: Uri) -> Answer {
    caller.require(Scope::Read)?;
    let query: ListQuery = params::query(&uri)?;
    let limit = params::limit(query.limit.as_deref())?;
    let page = controller.dead_letters.list(caller.listing_owner(), limit, query.cursor.as_deref()).await?;
    let items = page.items.iter().map(View::of).collect();
    ok(&crate::domain::page::Page { items, next_cursor: page.next_cursor })
}

pub async fn show(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Read)?;
    let letter = find(&controller, &caller, &id).await?;
    let payload = controller.payload(&letter.job.payload).await?;
    let text = String::from_utf8_lossy(&payload).into_owned();
    let view = View {
        payload_bytes: Some(payload.len() as u64),
        input_data: RawValue::from_string(text).ok(),
        ..View::of(&letter)
    };
    ok(&view)
}

pub async fn replay(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Invoke)?;
    caller.require_more_than_access()?;
    let letter = find(&controller, &caller, &id).await?;
    let of = letter.job.invocation;
    let replaying = controller.clone();
    let id = controller.to_the_end(async move { replaying.replay(letter).await }).await?;
    let answer = serde_json::json!({ "status": "ACCEPTED", "jobId": id, "requestId": id, "replayOf": of });
    let mut response = json(StatusCode::ACCEPTED, &answer)?;
    response.headers_mut().insert(super::REQUEST_ID, id_header(id));
    let object = Object { id: Some(of.to_string()), name: Some(id.to_string()), ..Object::default() };
    Ok(changed(response, Action::DeadLetterReplay, object))
}

async fn find(controller: &Controller, caller: &Caller, id: &str) -> Result<DeadLetter, ApiError> {
    let id: InvocationId = id.parse().map_err(|_| not_found())?;
    controller
        .dead_letters
        .get(id)
        .await?
        .filter(|letter| caller.sees(&letter.job.owner, letter.job.version.function))
        .ok_or_else(not_found)
}

fn not_found() -> ApiError {
    ApiError::new(Code::DeadLetterNotFound, "there is no such dead letter; it may have been replayed already")
}

impl Controller {
    async fn payload(&self, payload: &Payload) -> Result<bytes::Bytes, ApiError> {
        match payload {
            Payload::Inline(bytes) => Ok(bytes.clone()),
            Payload::Stored(digest) => Ok(self.artifacts.get(*digest).await?),
        }
    }

    /// A new invocation of the function's current version with the old input. Accepted first and removed then: a crash
    /// between the two leaves the letter to be replayed once more, and never loses it.
    async fn replay(&self, letter: DeadLetter) -> Result<InvocationId, ApiError> {
        let of = letter.job.invocation;
        let current = self.functions.by_id(letter.job.version.function, self.clock.monotonic()).await?;
        let invocation = Invocation {
            id: ids::invocation_id(self.now()),
            version: current.ok_or_else(function_not_found)?.version.clone(),
            payload: self.payload(&letter.job.payload).await?,
            model_id: letter.job.model_id,
            attempt: 1,
            accepted_at: self.now(),
            mode: Mode::Async,
        };
        // The letter's own id as key: two replays at once make one job.
        let idempotency = crate::controller::idempotency::for_replay(&letter.job.owner, &invocation, of);
        let id = self.accept(invocation, Acceptance { idempotency: Some(idempotency), replay_of: Some(of) }).await?;
        self.dead_letters.remove(of).await?;
        Ok(id)
    }
}
