//! Paths and queries as the routes read them.

use axum::extract::Query;
use http::{HeaderMap, Uri};
use serde::de::DeserializeOwned;

use crate::domain::ids::InvocationId;
use crate::domain::time::Timestamp;

use crate::controller::error::{ApiError, invocation_not_found};

pub const LIMIT_DEFAULT: usize = 50;
pub const LIMIT_MAX: usize = 1000;

/// The query as `T`, or 400 with what is wrong.
pub fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let read = Query::<T>::try_from_uri(uri);
    read.map(|query| query.0).map_err(|error| ApiError::invalid(format!("the query is wrong: {}", error.body_text())))
}

/// How many items a page may have.
pub fn limit(asked: Option<&str>) -> Result<usize, ApiError> {
    let Some(text) = asked else { return Ok(LIMIT_DEFAULT) };
    text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        ApiError::invalid(format!("limit must be a whole number from 1 to {LIMIT_MAX}, not {}", quoted(text)))
    })
}

pub fn time(name: &str, asked: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = asked else { return Ok(None) };
    let wrong = || {
        ApiError::invalid(format!(
            "{name} must be a time like 2026-01-31T12:00:00Z or milliseconds since 1970, not {}",
            quoted(text)
        ))
    };
    Timestamp::parse(text).map(Some).ok_or_else(wrong)
}

/// What is not an id names nothing.
pub fn invocation_id(text: &str) -> Result<InvocationId, ApiError> {
    text.parse().map_err(|_| invocation_not_found())
}

/// Another's words in a sentence of ours: short and on one line.
pub fn quoted(text: &str) -> String {
    const SHOWN_BYTES: usize = 64;
    let short = &text[..text.floor_char_boundary(SHOWN_BYTES)];
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

/// A header's text; what is not text is refused.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| ApiError::invalid(format!("the header {name} must be plain ASCII")))
}
