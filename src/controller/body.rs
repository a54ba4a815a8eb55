//! Reading a request's body: never more than its limit, never longer than its time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::error::{ApiError, Code};

/// Of a body that is refused as too large, so much is read and thrown away: a client that is still sending would otherwise
/// meet a reset connection instead of the answer.
const DISCARD_BYTES_MAX: u64 = 128 * 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_secs(5);
/// Room made ahead for a body whose length is announced.
const AHEAD_BYTES_MAX: u64 = 1024 * 1024;

/// What some editors put before UTF-8 text; JSON may not begin with it (RFC 8259, 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The whole body. `what` names it in the refusal.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: u64,
    within: Duration,
    what: &str,
) -> Result<Bytes, ApiError> {
    check_coding(headers)?;
    let announced = content_length(headers);
    if let Some(bytes) = announced.filter(|bytes| *bytes > limit) {
        // More than would be thrown away meets its end anyway: better at once. Whoever asks first has not begun to send.
        if bytes <= DISCARD_BYTES_MAX && !headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(ApiError::too_large(what, limit));
    }
    match tokio::time::timeout(within, collect(&mut body, announced.unwrap_or(0), limit)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(ApiError::too_large(what, limit))
        }
        Ok(Err(_broken)) => Err(incomplete()),
        Err(_elapsed) => Err(timed_out()),
    }
}

/// `None`: more than `limit`. A body that comes in one piece is not copied.
async fn collect(body: &mut Body, announced: u64, limit: u64) -> Result<Option<Bytes>, axum::Error> {
    let Some(first) = next(body).await? else { return Ok(Some(Bytes::new())) };
    if first.len() as u64 == announced {
        return Ok(Some(first));
    }
    let mut all =
        BytesMut::with_capacity(announced.clamp(first.len() as u64, AHEAD_BYTES_MAX.max(first.len() as u64)) as usize);
    all.extend_from_slice(&first);
    while let Some(more) = next(body).await? {
        if (all.len() + more.len()) as u64 > limit {
            return Ok(None);
        }
        if all.len() + more.len() > all.capacity() {
            // Whoever has sent that much means it: room for the rest at once, rather than by doubling.
            all.reserve(more.len().max((announced as usize).saturating_sub(all.len())));
        }
        all.extend_from_slice(&more);
    }
    Ok(((all.len() as u64) <= limit).then(|| all.freeze()))
}

/// The next piece of data; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, axum::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Reads on without keeping anything, within bounds.
pub async fn discard(mut body: Body) {
    let reading = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Ok(Some(data)) = next(&mut body).await {
            match left.checked_sub(data.len() as u64) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Whatever is left when the time is over goes with the connection.
    let _ = tokio::time::timeout(DISCARD_FOR, reading).await;
}

/// Nothing is inflated here: a few bytes could become very many.
pub fn check_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(ApiError::new(Code::UnsupportedMediaType, "bodies are taken as they are: leave Content-Encoding out"))
        }
        _ => Ok(()),
    }
}

pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub fn incomplete() -> ApiError {
    ApiError::new(Code::IncompleteBody, "the body ended before it was whole; send the request again")
}

pub fn timed_out() -> ApiError {
    ApiError::new(Code::RequestTimeout, "the body did not arrive in time; send the request again")
}

/// The body's JSON object as `T`, or what is wrong with it, and where.
pub fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(ApiError::invalid("the body begins with a byte order mark: send the JSON without it"));
    }
    // Serde would take an array for a struct's fields in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::invalid("the body must be a JSON object, not an array"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if !error.is_data() {
            return ApiError::invalid(format!("the body is not valid JSON: {error}"));
        }
        // Read again, on this path only, by a reader that remembers where it is.
        let again = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(bytes));
        match again.err().map(|error| error.path().to_string()) {
            Some(field) if field != "." => ApiError::invalid(format!("field {field} of the body is wrong: {error}")),
            _ => ApiError::invalid(format!("the body does not have the fields it should: {error}")),
        }
    })
}
