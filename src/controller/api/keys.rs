//! `/keys`: who may do what. A secret is shown once, when it is made.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde::Deserialize;

use crate::controller::auth::{Caller, new_key};
use crate::controller::body;
use crate::controller::error::{ApiError, Code};
use crate::domain::ids::{KeyId, Owner};
use crate::domain::key::Scope;
use crate::domain::limits::KIB;
use crate::domain::page::Page;
use crate::ports::bus::News;

use super::{Answer, Shared, json, ok};

const BODY_BYTES_MAX: u64 = 64 * KIB;
/// Keys that may exist: the cache of them, and the list, must stay small.
const KEYS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    name: String,
    /// The maker's own, if not named.
    owner: Option<String>,
    scopes: Vec<String>,
}

pub async fn list(State(controller): Shared, caller: Caller) -> Answer {
    caller.require(Scope::Admin)?;
    let items = controller.keys.store().list().await?;
    ok(&Page { items, next_cursor: None })
}

pub async fn create(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Admin)?;
    let (parts, body) = request.into_parts();
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let bytes = body::read(&parts.headers, body, BODY_BYTES_MAX, within, "the body").await?;
    let asked: NewKey = body::object(&bytes)?;
    check_text("name", &asked.name)?;
    let owner = asked.owner.as_deref().map_or_else(|| caller.owner().clone(), Owner::new);
    check_text("owner", &owner.0)?;
    let scopes = scopes(&asked.scopes)?;
    if controller.keys.store().list().await?.len() >= KEYS_MAX {
        return Err(ApiError::invalid(format!("there are {KEYS_MAX} keys, as many as may be; revoke one first")));
    }
    let (key, secret) = new_key(asked.name, owner, scopes, controller.clock.now());
    controller.keys.store().add(&key).await?;
    tracing::info!(key_id = %key.id, owner = %key.owner, "an API key was made");
    json(
        StatusCode::CREATED,
        &serde_json::json!({
            "id": key.id, "name": key.name, "owner": key.owner, "scopes": key.scopes, "createdAt": key.created_at,
            "secret": secret, "key": secret,
        }),
    )
}

pub async fn revoke(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Admin)?;
    let not_found = || ApiError::new(Code::KeyNotFound, "there is no such key; GET /keys lists them");
    let id: KeyId = id.parse().map_err(|_| not_found())?;
    if caller.key.id == id {
        return Err(ApiError::invalid("a key can't revoke itself; use another admin key"));
    }
    let revoking = controller.clone();
    let revoked = controller
        .to_the_end(async move {
            let revoked = revoking.keys.store().revoke(id).await?;
            revoking.keys.forget(id);
            revoking.bus.publish(News::KeyRevoked(id));
            Ok(revoked)
        })
        .await?;
    if !revoked {
        return Err(not_found());
    }
    tracing::info!(key_id = %id, "an API key was revoked");
    ok(&serde_json::json!({ "success": true, "id": id }))
}

fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{field} must be 1 to {NAME_BYTES_MAX} bytes of printable text")))
}

fn scopes(names: &[String]) -> Result<Vec<Scope>, ApiError> {
    let all = Scope::ALL.map(Scope::as_str).join(", ");
    if names.is_empty() {
        return Err(ApiError::invalid(format!("scopes is empty: name some of {all}")));
    }
    let mut scopes = Vec::new();
    for name in names {
        let scope = Scope::parse(name).ok_or_else(|| {
            ApiError::invalid(format!("there is no scope {}; name some of {all}", super::params::quoted(name)))
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}
