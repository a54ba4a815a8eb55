//! `/audit`: who changed what, newest first; for admins.

use axum::extract::State;
use http::Uri;
use serde::Deserialize;

use crate::controller::auth::Caller;
use crate::domain::key::Scope;

use super::{Answer, Shared, ok, params};

#[derive(Deserialize)]
struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

pub async fn list(State(controller): Shared, caller: Caller, uri: Uri) -> Answer {
    caller.require(Scope::Admin)?;
    let query: ListQuery = params::query(&uri)?;
    let limit = params::limit(query.limit.as_deref())?;
    ok(&controller.audit.log().list(limit, query.cursor.as_deref()).await?)
}
