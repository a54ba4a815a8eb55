//! `/status` and `/invocations`: the record, its events, its files, and cancelling it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::controller::Controller;
use crate::controller::auth::{Caller, FOLLOW};
use crate::controller::error::{ApiError, Code};
use crate::controller::follow::last_event_id;
use crate::domain::ids::InvocationId;
use crate::domain::invocation::{Mode, StoredRecord};
use crate::domain::key::Scope;
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::ports::bus::News;

use super::{Answer, Shared, id_header, json, ok, params};

pub async fn show(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require_any(&FOLLOW)?;
    let stored = controller.look_up(&caller, params::invocation_id(&id)?).await?;
    ok(&stored.record)
}

pub async fn events(State(controller): Shared, caller: Caller, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    caller.require_any(&FOLLOW)?;
    let id = params::invocation_id(&id)?;
    let mut response = controller.events(&caller, id, last_event_id(&headers)?).await?;
    response.headers_mut().insert(super::REQUEST_ID, id_header(id));
    Ok(response)
}

/// A file that the function left in `/output`.
pub async fn file(State(controller): Shared, caller: Caller, Path((id, name)): Path<(String, String)>) -> Answer {
    caller.require_any(&FOLLOW)?;
    let stored = controller.look_up(&caller, params::invocation_id(&id)?).await?;
    let file = stored.record.output_files.iter().find(|file| file.name == name).ok_or_else(|| {
        ApiError::new(Code::FileNotFound, "this invocation left no such file; outputFiles of its record lists them")
    })?;
    let bytes = controller.artifacts.get(file.sha256).await?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    // What a function wrote is never shown as a page of ours.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// 200 with the final record where it had not begun; 202 where it is told to stop; 409 where it is over.
pub async fn cancel(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Invoke)?;
    caller.require_more_than_access()?;
    let id = params::invocation_id(&id)?;
    let stored = controller.look_up(&caller, id).await?;
    if stored.record.status.is_final() {
        return Err(finished(id));
    }
    let cancelling = controller.clone();
    let record = controller.to_the_end(async move { cancelling.cancel(stored).await }).await?;
    match record {
        Some(stored) => ok(&stored.record),
        None => {
            json(StatusCode::ACCEPTED, &serde_json::json!({ "success": true, "requestId": id, "status": "RUNNING" }))
        }
    }
}

fn finished(id: InvocationId) -> ApiError {
    ApiError::new(Code::InvocationFinished, "this invocation is over already; GET /status shows how it ended").about(id)
}

impl Controller {
    /// The final record of an invocation that only waited in the queue; `None`: whoever runs it was told to stop.
    async fn cancel(&self, stored: Arc<StoredRecord>) -> Result<Option<Arc<StoredRecord>>, ApiError> {
        let id = stored.record.request_id;
        let mut cancelled = None;
        if stored.mode == Mode::Async && stored.record.status == Status::Queued {
            let mut own = StoredRecord::clone(&stored);
            let failure = Failure::new(ErrorType::Cancelled, "cancelled before it began");
            own.record.finish(Outcome::without_execution(Status::Cancelled, failure), self.now());
            let own = Arc::new(own);
            if self.invocations.finish(own.clone()).await? {
                cancelled = Some(own);
            } else if self.is_over(id).await? {
                return Err(finished(id));
            }
        }
        // Told in any case: it may have begun in this very moment.
        if !self.executor.cancel(id) {
            self.bus.publish(News::Cancel(id));
        }
        if cancelled.is_some() {
            self.bus.publish(News::Finished(id));
        }
        Ok(cancelled)
    }

    async fn is_over(&self, id: InvocationId) -> Result<bool, ApiError> {
        use crate::ports::invocations::Lookup;
        Ok(match self.invocations.get(id).await? {
            Lookup::Found(stored) => stored.record.status.is_final(),
            Lookup::Expired { .. } | Lookup::Unknown => true,
        })
    }
}
