//! `/keys`: who may do what. A secret is shown once, when it is made.
//!
//! Admins make keys of every kind. Whoever deploys makes access keys: each for one function that is theirs.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde::Deserialize;

use crate::controller::auth::{Caller, new_key};
use crate::controller::error::{ApiError, Code, function_not_found};
use crate::controller::{Controller, body};
use crate::domain::audit::{Action, Object};
use crate::domain::ids::{FunctionId, KeyId, Owner};
use crate::domain::key::{Key, Scope};
use crate::domain::limits::KIB;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;

use super::{Answer, Shared, changed, functions, json, ok};

const BODY_BYTES_MAX: u64 = 64 * KIB;
/// Keys that may exist: the cache of them, and the list, must stay small.
const KEYS_MAX: usize = 10_000;
/// Of them, as many as are left to admins when owners have made all of theirs.
const KEYS_FOR_ADMINS: usize = 1_000;
/// Access keys of one owner.
const ACCESS_KEYS_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 128;
const DESCRIPTION_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewKey {
    name: String,
    #[serde(default)]
    description: String,
    /// The maker's own, if not named.
    owner: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    /// Of the one function that it may invoke: id or name.
    #[serde(alias = "function", alias = "functionName")]
    function_id: Option<String>,
    expires_at: Option<Timestamp>,
}

/// Whose key it is to be, and for what.
struct Terms {
    owner: Owner,
    scopes: Vec<Scope>,
    function: Option<FunctionId>,
}

pub async fn list(State(controller): Shared, caller: Caller) -> Answer {
    caller.require(Scope::Deploy)?;
    let mut items = controller.keys.store().list().await?;
    items.retain(|key| manages(&caller, key));
    ok(&Page { items, next_cursor: None })
}

pub async fn create(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Deploy)?;
    let (parts, body) = request.into_parts();
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let bytes = body::read(&parts.headers, body, BODY_BYTES_MAX, within, "the body").await?;
    let asked: NewKey = body::object(&bytes)?;
    check_text("name", &asked.name, 1, NAME_BYTES_MAX)?;
    check_text("description", &asked.description, 0, DESCRIPTION_BYTES_MAX)?;
    if asked.expires_at.is_some_and(|at| at <= controller.now()) {
        return Err(ApiError::invalid("expiresAt must be in the future"));
    }
    let terms = terms(&controller, &caller, &asked).await?;
    check_room(&controller, &caller, &terms).await?;
    let (key, secret) = new_key(asked.name, terms.owner, terms.scopes, controller.now());
    let key = Key { description: asked.description, function: terms.function, expires_at: asked.expires_at, ..key };
    controller.keys.store().add(&key).await?;
    if let Some(function) = key.function
        && controller.functions.registry().function(function).await?.is_none()
    {
        // Deleted meanwhile, and the keys it had with it.
        controller.keys.store().revoke(key.id).await?;
        return Err(function_not_found());
    }
    tracing::info!(key_id = %key.id, owner = %key.owner, "an API key was made");
    let mut shown = serde_json::json!(key);
    shown["secret"] = secret.as_str().into();
    shown["key"] = secret.into();
    Ok(changed(json(StatusCode::CREATED, &shown)?, Action::KeyCreate, object(&key)))
}

async fn terms(controller: &Controller, caller: &Caller, asked: &NewKey) -> Result<Terms, ApiError> {
    let Some(function) = &asked.function_id else {
        caller.require(Scope::Admin)?;
        let owner = asked.owner.as_deref().map_or_else(|| caller.owner().clone(), Owner::new);
        check_text("owner", &owner.0, 1, NAME_BYTES_MAX)?;
        return Ok(Terms { owner, scopes: scopes(&asked.scopes)?, function: None });
    };
    let function = functions::find(controller, caller, function).await?.function.clone();
    if asked.owner.as_deref().is_some_and(|owner| owner != &*function.owner.0) {
        return Err(ApiError::invalid("an access key belongs to its function's owner; leave owner out"));
    }
    if asked.scopes.iter().any(|scope| scope != Scope::Invoke.as_str()) {
        return Err(ApiError::invalid("an access key may invoke its function and nothing else; leave scopes out"));
    }
    Ok(Terms { owner: function.owner, scopes: vec![Scope::Invoke], function: Some(function.id) })
}

async fn check_room(controller: &Controller, caller: &Caller, terms: &Terms) -> Result<(), ApiError> {
    let keys = controller.keys.store().list().await?;
    let most = if caller.principal.is_admin() { KEYS_MAX } else { KEYS_MAX - KEYS_FOR_ADMINS };
    if keys.len() >= most {
        return Err(ApiError::new(
            Code::TooManyKeys,
            format!("there are {most} keys, as many as may be; revoke one first"),
        ));
    }
    let access_keys = keys.iter().filter(|key| key.function.is_some() && key.owner == terms.owner).count();
    if terms.function.is_some() && access_keys >= ACCESS_KEYS_MAX {
        let sentence = format!("this owner has {ACCESS_KEYS_MAX} access keys, as many as may be; revoke one first");
        return Err(ApiError::new(Code::TooManyKeys, sentence));
    }
    Ok(())
}

pub async fn revoke(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Deploy)?;
    let not_found = || ApiError::new(Code::KeyNotFound, "there is no such key; GET /keys lists them");
    let id: KeyId = id.parse().map_err(|_| not_found())?;
    if caller.principal.key_id() == Some(id) {
        return Err(ApiError::invalid("a key can't revoke itself; use another admin key"));
    }
    let keys = controller.keys.store().list().await?;
    let key = keys.into_iter().find(|key| key.id == id && manages(&caller, key)).ok_or_else(not_found)?;
    let revoking = controller.clone();
    let revoked = controller
        .to_the_end(async move {
            let revoked = revoking.keys.store().revoke(id).await?;
            revoking.forget_key(id);
            Ok(revoked)
        })
        .await?;
    if !revoked {
        return Err(not_found());
    }
    tracing::info!(key_id = %id, "an API key was revoked");
    Ok(changed(ok(&serde_json::json!({ "success": true, "id": id }))?, Action::KeyRevoke, object(&key)))
}

/// Owners manage their access keys, admins every key.
fn manages(caller: &Caller, key: &Key) -> bool {
    caller.principal.is_admin() || (key.function.is_some() && key.owner == *caller.owner())
}

fn object(key: &Key) -> Object {
    Object {
        id: Some(key.id.to_string()),
        name: Some(key.name.clone()),
        owner: Some(key.owner.to_string()),
        version: None,
    }
}

fn check_text(field: &str, text: &str, least: usize, most: usize) -> Result<(), ApiError> {
    if (least..=most).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{field} must be {least} to {most} bytes of printable text")))
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
