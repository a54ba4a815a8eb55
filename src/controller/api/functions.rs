//! `/functions`: create, list, show, update, delete. An update publishes a new version; nothing published ever changes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use crate::controller::auth::Caller;
use crate::controller::deploy::{Form, Upload};
use crate::controller::error::{ApiError, Code};
use crate::controller::lookup::Current;
use crate::controller::spec::Settings;
use crate::controller::{Controller, body};
use crate::domain::audit::{Action, Object};
use crate::domain::env::Env;
use crate::domain::function::{Function, Runtime, Version};
use crate::domain::ids::{Digest, FunctionId, Owner};
use crate::domain::key::Scope;
use crate::domain::limits::MIB;
use crate::domain::page::Page;
use crate::domain::policy::advice::Advice;
use crate::domain::time::Timestamp;

use super::{Answer, Shared, changed, json, ok, params, upload};

/// Versions of one function that are listed.
const VERSIONS_MAX: usize = 1000;

/// A function and one of its versions, as everybody may see it: of the environment the names only.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    function_id: FunctionId,
    id: FunctionId,
    name: &'a str,
    owner: &'a Owner,
    runtime: Runtime,
    handler: Option<&'a str>,
    memory_mb: u32,
    auto_memory: bool,
    timeout_ms: u64,
    description: &'a str,
    version: u32,
    env_names: Vec<&'a str>,
    code_sha256: Digest,
    code_bytes: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> View<'a> {
    pub fn of(current: &'a Current) -> Self {
        Self::new(&current.version, current.function.created_at, current.function.updated_at)
    }

    fn new(version: &'a Version, created_at: Timestamp, updated_at: Timestamp) -> Self {
        Self {
            function_id: version.function_id,
            id: version.function_id,
            name: &version.function_name,
            owner: &version.owner,
            runtime: version.runtime,
            handler: version.handler.as_deref(),
            memory_mb: version.memory_mb,
            auto_memory: version.auto_memory,
            timeout_ms: version.timeout_ms,
            description: &version.description,
            version: version.number,
            env_names: version.env.names().collect(),
            code_sha256: version.code,
            code_bytes: version.code_bytes,
            created_at,
            updated_at,
        }
    }

    fn listed(function: &'a Function, version: &'a Version) -> Self {
        Self::new(version, function.created_at, function.updated_at)
    }
}

/// One function by itself, with what its last calls say about its memory.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    view: View<'a>,
    advice: Option<&'a Advice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FunctionBody<'a> {
    name: Option<String>,
    runtime: Option<String>,
    handler: Option<String>,
    #[serde(borrow)]
    code: Option<CodeBody<'a>>,
    memory_mb: Option<u64>,
    auto_memory: Option<bool>,
    timeout_ms: Option<u64>,
    #[serde(alias = "envVars")]
    env: Option<Env>,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CodeBody<'a> {
    #[serde(borrow)]
    inline: Option<Cow<'a, str>>,
    #[serde(borrow)]
    zip_base64: Option<Cow<'a, str>>,
    file_name: Option<String>,
}

/// A body, read and taken apart.
struct Asked {
    name: Option<String>,
    settings: Settings,
    code: Option<Upload>,
}

pub async fn create(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Deploy)?;
    let (_place, asked) = read(&controller, request).await?;
    let name = asked.name.ok_or_else(|| ApiError::invalid("name is missing: a function must have one"))?;
    let code = asked.code.ok_or_else(no_code)?;
    let creating = controller.clone();
    let current = controller
        .to_the_end(async move { creating.create_function(caller.owner(), &name, asked.settings, code).await })
        .await?;
    Ok(changed(json(StatusCode::CREATED, &View::of(&current))?, Action::FunctionCreate, object(&current)))
}

pub async fn replace(state: Shared, caller: Caller, Path(id): Path<String>, request: Request) -> Answer {
    update(state, caller, id, request, true).await
}

pub async fn change(state: Shared, caller: Caller, Path(id): Path<String>, request: Request) -> Answer {
    update(state, caller, id, request, false).await
}

async fn update(State(controller): Shared, caller: Caller, id: String, request: Request, afresh: bool) -> Answer {
    caller.require(Scope::Deploy)?;
    let current = find(&controller, &caller, &id).await?;
    let (_place, asked) = read(&controller, request).await?;
    if asked.name.as_deref().is_some_and(|name| name != &*current.function.name) {
        return Err(ApiError::invalid("a function keeps its name; leave name out, or create another function"));
    }
    if afresh && asked.code.is_none() {
        return Err(no_code());
    }
    let (publishing, id) = (controller.clone(), current.function.id);
    let published = controller
        .to_the_end(async move { publishing.publish_version(id, asked.settings, asked.code, afresh).await })
        .await?;
    Ok(changed(ok(&View::of(&published))?, Action::FunctionUpdate, object(&published)))
}

pub async fn show(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Read)?;
    let current = find(&controller, &caller, &id).await?;
    let advice = controller.executor.advice(current.version.key());
    ok(&Shown { view: View::of(&current), advice: advice.as_deref() })
}

pub async fn delete(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Deploy)?;
    let current = find(&controller, &caller, &id).await?;
    let (deleting, id) = (controller.clone(), current.function.id);
    controller.to_the_end(async move { deleting.delete_function(id).await }).await?;
    let answer = ok(&serde_json::json!({ "success": true, "functionId": id }))?;
    Ok(changed(answer, Action::FunctionDelete, object(&current)))
}

/// A function as the audit log names it.
pub fn object(current: &Current) -> Object {
    let function = &current.function;
    Object {
        id: Some(function.id.to_string()),
        name: Some(function.name.to_string()),
        owner: Some(function.owner.to_string()),
        version: Some(current.version.number),
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
    let page = controller.functions.registry().list(caller.listing_owner(), limit, query.cursor.as_deref()).await?;
    let items = page.items.iter().map(|(function, version)| View::listed(function, version)).collect();
    ok(&Page { items, next_cursor: page.next_cursor })
}

pub async fn versions(State(controller): Shared, caller: Caller, Path(id): Path<String>) -> Answer {
    caller.require(Scope::Read)?;
    let function = find(&controller, &caller, &id).await?.function.clone();
    let versions = controller.functions.registry().versions(function.id, VERSIONS_MAX).await?;
    let items = versions.iter().map(|version| View::new(version, function.created_at, version.created_at)).collect();
    ok(&Page { items, next_cursor: None })
}

pub async fn find(controller: &Controller, caller: &Caller, id: &str) -> Result<Arc<Current>, ApiError> {
    controller.functions.find(caller, id, controller.clock.monotonic()).await
}

fn no_code() -> ApiError {
    ApiError::invalid("code is missing: send code.inline (a source text) or code.zipBase64")
}

async fn read(
    controller: &Controller,
    request: Request,
) -> Result<(tokio::sync::OwnedSemaphorePermit, Asked), ApiError> {
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let place = upload::place(controller, within).await?;
    let (parts, body) = request.into_parts();
    // Base64 makes four bytes of three.
    let limit = (controller.config.limits.zip_bytes / 3 + 1).saturating_mul(4).saturating_add(MIB);
    let bytes = body::read(&parts.headers, body, limit, within, "the body").await?;
    Ok((place, parse(&bytes)?))
}

fn parse(bytes: &[u8]) -> Result<Asked, ApiError> {
    let body: FunctionBody<'_> = body::object(bytes)?;
    let code = body.code.map(code).transpose()?;
    let settings = Settings {
        runtime: body.runtime,
        handler: body.handler,
        memory_mb: body.memory_mb,
        auto_memory: body.auto_memory,
        timeout_ms: body.timeout_ms,
        env: body.env,
        description: body.description,
    };
    Ok(Asked { name: body.name, settings, code })
}

fn code(body: CodeBody<'_>) -> Result<Upload, ApiError> {
    let (bytes, form) = match (body.inline, body.zip_base64) {
        (Some(text), None) => (Bytes::from(text.into_owned()), Form::Source),
        (None, Some(text)) => {
            let unpacked = STANDARD.decode(text.as_bytes());
            let not_base64 =
                |error| ApiError::new(Code::InvalidRequest, format!("code.zipBase64 is not base64: {error}"));
            (Bytes::from(unpacked.map_err(not_base64)?), Form::Archive)
        }
        _ => return Err(ApiError::invalid("code must have one of inline and zipBase64")),
    };
    Ok(Upload { bytes, file_name: body.file_name, form })
}
