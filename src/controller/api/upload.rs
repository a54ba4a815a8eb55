//! `POST /upload`: code as multipart, by hand or from a form. Read piece by piece, and never more of it than the limits allow.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request, State};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::controller::auth::Caller;
use crate::controller::deploy::{self, Upload};
use crate::controller::error::{ApiError, Code};
use crate::controller::spec::Settings;
use crate::controller::{Controller, body};
use crate::domain::audit::Action;
use crate::domain::env::Env;
use crate::domain::key::Scope;
use crate::domain::limits::{KIB, MIB};

use super::functions::{View, object};
use super::{Answer, Shared, changed, ok, params};

/// A text field.
const FIELD_BYTES_MAX: u64 = 64 * KIB;
const FIELDS_MAX: usize = 32;
/// What a body may have beside its file.
const ENVELOPE_BYTES: u64 = MIB;

#[derive(Default)]
struct Form {
    name: Option<String>,
    settings: Settings,
    file: Option<Upload>,
}

pub async fn upload(State(controller): Shared, caller: Caller, request: Request) -> Answer {
    caller.require(Scope::Deploy)?;
    let within = Duration::from_millis(controller.config.http.body_timeout_ms);
    let _place = place(&controller, within).await?;
    let form = tokio::time::timeout(within, read(&controller, request)).await.map_err(|_| body::timed_out())??;
    let name = form.name.ok_or_else(|| {
        ApiError::invalid("the function's name is missing: send the header x-function-name or the field functionName")
    })?;
    let file = form.file.ok_or_else(|| {
        ApiError::invalid("the code is missing: send a zip archive or a source file as the field named file")
    })?;
    let publishing = controller.clone();
    let current = controller
        .to_the_end(async move { publishing.upload(caller.owner(), &name, form.settings, file).await })
        .await?;
    let action = if current.version.number == 1 { Action::FunctionCreate } else { Action::FunctionUpdate };
    Ok(changed(ok(&Uploaded { success: true, view: View::of(&current) })?, action, object(&current)))
}

#[derive(serde::Serialize)]
struct Uploaded<'a> {
    success: bool,
    #[serde(flatten)]
    view: View<'a>,
}

/// One of the few uploads that are in memory at once.
pub async fn place(controller: &Controller, within: Duration) -> Result<tokio::sync::OwnedSemaphorePermit, ApiError> {
    let waiting = controller.uploads.clone().acquire_owned();
    match tokio::time::timeout(within, waiting).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(ApiError::new(Code::NoCapacity, "too many uploads are under way; try again shortly")),
    }
}

async fn read(controller: &Arc<Controller>, request: Request) -> Result<Form, ApiError> {
    let mut form = Form::default();
    for name in ["x-function-name", "x-runtime", "x-memory-mb", "x-timeout-ms", "x-handler"] {
        if let Some(value) = params::header(request.headers(), name)? {
            set(&mut form, name, value)?;
        }
    }
    let limit = controller.config.limits.zip_bytes;
    if body::content_length(request.headers()).is_some_and(|bytes| bytes > limit.saturating_add(ENVELOPE_BYTES)) {
        body::discard(request.into_body()).await;
        return Err(ApiError::too_large("the upload", limit));
    }
    check_kind(request.headers())?;
    body::check_coding(request.headers())?;
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| ApiError::invalid(format!("the multipart body is wrong: {}", error.body_text())))?;
    match fields(&mut multipart, &mut form, limit).await {
        Ok(()) => Ok(form),
        Err(error) => {
            // The client may still be sending; it should get to read the answer.
            let rest = async { while let Ok(Some(_)) = multipart.next_field().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
            Err(error)
        }
    }
}

fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("multipart/form-data") {
        return Ok(());
    }
    Err(ApiError::new(Code::UnsupportedMediaType, "send the upload as multipart/form-data with a field named file"))
}

async fn fields(multipart: &mut Multipart, form: &mut Form, limit: u64) -> Result<(), ApiError> {
    let mut count = 0;
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        count += 1;
        if count > FIELDS_MAX {
            return Err(ApiError::invalid(format!("the form has more than {FIELDS_MAX} fields")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let file_name = field.file_name().map(str::to_owned);
            let bytes = chunks(field, limit, "the file").await?;
            let said = said(file_name.as_deref());
            if form.file.replace(Upload { bytes, file_name, form: said }).is_some() {
                return Err(ApiError::invalid(
                    "the form has two fields named file; pack several files as one zip archive",
                ));
            }
        } else {
            let bytes = chunks(field, FIELD_BYTES_MAX, "a form field").await?;
            let text = std::str::from_utf8(&bytes)
                .map_err(|_| ApiError::invalid(format!("the field {} must be UTF-8 text", params::quoted(&name))))?;
            set(form, &name, text)?;
        }
    }
    Ok(())
}

fn said(file_name: Option<&str>) -> deploy::Form {
    match file_name {
        Some(name) if name.to_ascii_lowercase().ends_with(".zip") => deploy::Form::Archive,
        _ => deploy::Form::Either,
    }
}

async fn chunks(mut field: Field<'_>, limit: u64, what: &str) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        if (all.len() + chunk.len()) as u64 > limit {
            return Err(ApiError::too_large(what, limit));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn broken(error: MultipartError) -> ApiError {
    ApiError::new(Code::IncompleteBody, format!("the multipart body is broken or not whole: {}", error.body_text()))
}

/// A header or a form field. Where both name a thing the field counts.
fn set(form: &mut Form, name: &str, value: &str) -> Result<(), ApiError> {
    let settings = &mut form.settings;
    match name {
        "x-function-name" | "functionName" | "name" => form.name = Some(value.to_owned()),
        "x-runtime" | "runtime" => settings.runtime = Some(value.to_owned()),
        "x-handler" | "handler" => settings.handler = Some(value.to_owned()),
        "x-memory-mb" | "memoryMb" => settings.memory_mb = Some(number("memoryMb", value)?),
        "x-timeout-ms" | "timeoutMs" => settings.timeout_ms = Some(number("timeoutMs", value)?),
        "autoMemory" => settings.auto_memory = Some(boolean("autoMemory", value)?),
        "description" => settings.description = Some(value.to_owned()),
        "envVars" | "env" => settings.env = Some(env(value)?),
        unknown => {
            let known = "file, functionName, runtime, handler, memoryMb, autoMemory, timeoutMs, description, envVars";
            let unknown = params::quoted(unknown);
            return Err(ApiError::invalid(format!("there is no field {unknown} in an upload; the fields are {known}")));
        }
    }
    Ok(())
}

fn number(field: &str, text: &str) -> Result<u64, ApiError> {
    let wrong = || ApiError::invalid(format!("{field} must be a whole number, not {}", params::quoted(text)));
    text.trim().parse().map_err(|_| wrong())
}

fn boolean(field: &str, text: &str) -> Result<bool, ApiError> {
    let wrong = || ApiError::invalid(format!("{field} must be true or false, not {}", params::quoted(text)));
    text.trim().parse().map_err(|_| wrong())
}

/// What is wrong is said without showing a value, which may be a secret: see [`Env`].
fn env(text: &str) -> Result<Env, ApiError> {
    if text.trim().is_empty() {
        return Ok(Env::default());
    }
    serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(format!("envVars must be a JSON object of texts: {error}")))
}
