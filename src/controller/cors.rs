//! Pages of other origins in browsers (CORS): none may use the API, but those that the configuration names. A key is sent by the
//! page's own script in a header, never by the browser by itself, so credentials are not allowed.

use std::collections::HashSet;

use axum::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};
use http::{Method, Request, Response, StatusCode};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
/// What a page may send.
const SENT: HeaderValue = HeaderValue::from_static(
    "accept, authorization, content-type, idempotency-key, last-event-id, x-api-key, x-async, x-function-name, x-handler, \
     x-memory-mb, x-runtime, x-timeout-ms",
);
/// What a page's script may read beside the body.
const SHOWN: HeaderValue = HeaderValue::from_static(
    "retry-after, x-faasd-function-error, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
);
/// Seconds that a browser need not ask again.
const KEPT_FOR: HeaderValue = HeaderValue::from_static("600");

pub struct Cors {
    origins: HashSet<HeaderValue>,
}

impl Cors {
    /// `None` where no origin is named.
    pub fn new(origins: &[String]) -> Option<Self> {
        let origins: HashSet<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
        (!origins.is_empty()).then_some(Self { origins })
    }

    /// The request's origin, if it may use the API.
    pub fn allowed<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        request.headers().get(ORIGIN).filter(|origin| self.origins.contains(*origin)).cloned()
    }

    /// The answer to a browser that asks beforehand. It carries no key and learns nothing but what is in the documentation.
    pub fn preflight<B>(request: &Request<B>, origin: &HeaderValue) -> Option<Response<Body>> {
        if request.method() != Method::OPTIONS || !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        headers.insert(ACCESS_CONTROL_MAX_AGE, KEPT_FOR);
        mark(headers, Some(origin.clone()));
        Some(response)
    }
}

/// Says on an answer who may read it.
pub fn mark(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
    }
}
