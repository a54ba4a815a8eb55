//! Logs: what invocations printed and how they ended, newest first; whole texts by invocation.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::controller::Controller;
use crate::controller::auth::{Caller, FOLLOW};
use crate::controller::error::{ApiError, Code, invocation_not_found};
use crate::domain::ids::{FunctionId, InvocationId};
use crate::domain::invocation::{Record, StoredRecord};
use crate::domain::outcome::Status;
use crate::domain::time::Timestamp;
use crate::ports::invocations::RecordQuery;

use super::functions::find;
use super::{Answer, Shared, ok, params};

/// What a listing shows of stdout and of stderr, each; the whole is one request away.
const SHOWN_BYTES: usize = 8 * 1024;
const CUT: &str = "\n… [cut; GET /functions/{id}/logs/{requestId} has the whole text]";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogQuery {
    limit: Option<String>,
    cursor: Option<String>,
    status: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
}

pub async fn of_function(State(controller): Shared, caller: Caller, Path(id): Path<String>, uri: Uri) -> Answer {
    caller.require_any(&FOLLOW)?;
    caller.require_more_than_access()?;
    let query = query(&caller, &uri)?;
    let function = find(&controller, &caller, &id).await?.function.id;
    answer(&controller, RecordQuery { function: Some(function), ..query }).await
}

pub async fn all(State(controller): Shared, caller: Caller, uri: Uri) -> Answer {
    caller.require_any(&FOLLOW)?;
    caller.require_more_than_access()?;
    answer(&controller, query(&caller, &uri)?).await
}

fn query(caller: &Caller, uri: &Uri) -> Result<RecordQuery, ApiError> {
    let query: LogQuery = params::query(uri)?;
    let status = match query.status.as_deref() {
        None => None,
        Some(text) => Some(Status::parse(text).ok_or_else(|| {
            let names = Status::ALL.map(Status::as_str).join(", ");
            ApiError::invalid(format!("status must be one of {names}, not {}", params::quoted(text)))
        })?),
    };
    Ok(RecordQuery {
        owner: caller.listing_owner().cloned(),
        function: None,
        status,
        since: params::time("startTime", query.start_time.as_deref())?,
        until: params::time("endTime", query.end_time.as_deref())?,
        cursor: query.cursor,
        limit: params::limit(query.limit.as_deref())?,
        ..RecordQuery::default()
    })
}

/// Records without their results, and with long output cut.
async fn answer(controller: &Controller, query: RecordQuery) -> Answer {
    let page = controller.invocations.list(&query).await?;
    ok(&page.map(|stored| shown(&stored.record)))
}

fn shown(record: &Record) -> Record {
    Record { result: None, stdout: cut(&record.stdout), stderr: cut(&record.stderr), ..record.clone() }
}

fn cut(text: &str) -> String {
    if text.len() <= SHOWN_BYTES {
        return text.to_owned();
    }
    format!("{}{CUT}", &text[..text.floor_char_boundary(SHOWN_BYTES)])
}

/// All that one invocation printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FullText<'a> {
    request_id: InvocationId,
    function_id: FunctionId,
    function_name: &'a str,
    version: u32,
    status: Status,
    created_at: Timestamp,
    stdout: &'a str,
    stderr: &'a str,
    /// stdout and stderr in the order they were printed, where that was kept; else one after the other.
    text: &'a str,
}

/// The record as the logs keep it, longer than its result can be asked for.
async fn logged(controller: &Controller, caller: &Caller, id: InvocationId) -> Result<Arc<StoredRecord>, ApiError> {
    let expired = match controller.look_up(caller, id).await {
        Err(error) if error.code == Code::InvocationExpired => error,
        other => return other,
    };
    let owner = caller.listing_owner().cloned();
    let query = RecordQuery { invocation: Some(id), owner, limit: 1, ..RecordQuery::default() };
    controller.invocations.list(&query).await?.items.pop().ok_or(expired)
}

/// JSON, or the bare text for whoever asks for `text/plain`.
pub async fn full_text(
    State(controller): Shared,
    caller: Caller,
    Path((function, request)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    caller.require_any(&FOLLOW)?;
    caller.require_more_than_access()?;
    let stored = logged(&controller, &caller, params::invocation_id(&request)?).await?;
    let record = &stored.record;
    // Logs outlive their function: the id in the path is enough.
    if function.parse() != Ok(record.function_id) && function != *record.function_name {
        return Err(invocation_not_found());
    }
    let text = match record.log_artifact {
        Some(digest) => String::from_utf8_lossy(&controller.artifacts.get(digest).await?).into_owned(),
        None => [record.stdout.as_str(), record.stderr.as_str()].concat(),
    };
    if headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/plain")) {
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        return Ok(response);
    }
    ok(&FullText {
        request_id: record.request_id,
        function_id: record.function_id,
        function_name: &record.function_name,
        version: record.version,
        status: record.status,
        created_at: record.created_at,
        stdout: &record.stdout,
        stderr: &record.stderr,
        text: &text,
    })
}
