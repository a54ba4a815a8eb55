//! What an answer says when the platform could not do what was asked. Each code has its paragraph in `docs/errors.md`.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::domain::ids::InvocationId;
use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactError;
use crate::ports::executor::{BuildError, ExecuteError, OrderError};
use crate::ports::registry::RegistryError;

use super::api::id_header;

/// Every code that an answer may carry, with the HTTP status it comes with.
macro_rules! codes {
    ($($name:ident = $status:ident,)*) => {
        /// The stable name of a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($name,)* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }
        }
    };
}

codes! {
    InvalidRequest = BAD_REQUEST,
    IncompleteBody = BAD_REQUEST,
    Unauthorized = UNAUTHORIZED,
    Forbidden = FORBIDDEN,
    RouteNotFound = NOT_FOUND,
    FunctionNotFound = NOT_FOUND,
    InvocationNotFound = NOT_FOUND,
    DeadLetterNotFound = NOT_FOUND,
    KeyNotFound = NOT_FOUND,
    FileNotFound = NOT_FOUND,
    WorkerNotFound = NOT_FOUND,
    MethodNotAllowed = METHOD_NOT_ALLOWED,
    RequestTimeout = REQUEST_TIMEOUT,
    FunctionExists = CONFLICT,
    AmbiguousName = CONFLICT,
    UpdateConflict = CONFLICT,
    InvocationFinished = CONFLICT,
    InvocationExpired = GONE,
    PayloadTooLarge = PAYLOAD_TOO_LARGE,
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE,
    InvalidPackage = UNPROCESSABLE_ENTITY,
    CompileFailed = UNPROCESSABLE_ENTITY,
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY,
    TooManyFunctions = UNPROCESSABLE_ENTITY,
    TooManyKeys = UNPROCESSABLE_ENTITY,
    TooManyRequests = TOO_MANY_REQUESTS,
    TooManyFailures = TOO_MANY_REQUESTS,
    PlatformError = SERVICE_UNAVAILABLE,
    NoCapacity = SERVICE_UNAVAILABLE,
    Draining = SERVICE_UNAVAILABLE,
    RuntimeUnavailable = SERVICE_UNAVAILABLE,
    WorkerUnreachable = SERVICE_UNAVAILABLE,
    StoreUnavailable = SERVICE_UNAVAILABLE,
    AuditUnavailable = SERVICE_UNAVAILABLE,
    WaitExpired = GATEWAY_TIMEOUT,
    DiskFull = INSUFFICIENT_STORAGE,
    InternalError = INTERNAL_SERVER_ERROR,
}

/// When a caller that met a passing failure should come back, unless something better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A failure on its way to the caller. It becomes a body when the request's id is known: see [`render`].
#[derive(Clone, Debug)]
pub struct ApiError {
    pub code: Code,
    /// One sentence that says what to do next.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// The invocation it is about, where that is not the request's own id.
    pub invocation: Option<InvocationId>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'a str,
    #[serde(rename = "requestId")]
    request_id: InvocationId,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let passing = matches!(
            code,
            Code::NoCapacity
                | Code::Draining
                | Code::WorkerUnreachable
                | Code::StoreUnavailable
                | Code::AuditUnavailable
                | Code::PlatformError
        );
        Self { code, message: message.into(), retry_after: passing.then_some(RETRY_AFTER_DEFAULT), invocation: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    pub fn too_large(what: &str, limit: u64) -> Self {
        Self::new(Code::PayloadTooLarge, format!("{what} is larger than the limit of {limit} bytes; send less"))
    }

    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn about(mut self, invocation: InvocationId) -> Self {
        self.invocation = Some(invocation);
        self
    }

    /// The JSON that the caller reads.
    pub fn body(&self, request_id: InvocationId) -> Vec<u8> {
        let body = ErrorBody {
            error: &self.message,
            code: self.code.as_str(),
            request_id: self.invocation.unwrap_or(request_id),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl IntoResponse for ApiError {
    /// A response without its body, which [`render`] adds on the way out.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// Left on a rendered answer for those who count.
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub Code);

/// Gives a failed answer its body. Answers of the framework's own (a refused path parameter, say) get one as well, so that
/// every failure has the same form.
pub fn render(mut response: Response, request_id: InvocationId) -> Response {
    let status = response.status();
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if status.is_success() || status.is_redirection() || is_json(response.headers()) => return response,
        None => from_status(status),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(http::header::CONTENT_LENGTH);
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000).max(1) as u64));
    }
    if error.code == Code::Unauthorized {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = Body::from(error.body(request_id));
    if let Some(id) = error.invocation {
        response.headers_mut().insert("x-request-id", id_header(id));
    }
    response.extensions_mut().insert(Refused(error.code));
    response
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/json")
}

fn from_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => {
            ApiError::new(Code::RouteNotFound, "there is no such route; GET / lists where to look")
        }
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            Code::MethodNotAllowed,
            "this route does not take that method; the Allow header names those it takes",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::PayloadTooLarge, "the body is too large; send less"),
        status if status.is_client_error() => ApiError::invalid("the request could not be understood"),
        _ => ApiError::new(Code::InternalError, "something went wrong here; the log has the request's id"),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::InvalidCursor) {
            return Self::invalid("cursor is not one that a listing gave; leave it out to start from the top");
        }
        if matches!(error, StoreError::Corrupt(_)) {
            tracing::error!(%error, "the store holds damaged data");
            return Self::new(
                Code::InternalError,
                "stored data is damaged; ask the operator to look at the daemon's log",
            );
        }
        tracing::warn!(%error, "the store refused");
        let sentence = match error {
            StoreError::Full(_) => "the store is full; try again later, or ask the operator for room",
            _ => "the store is not available; try again shortly",
        };
        Self::new(Code::StoreUnavailable, sentence)
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NameTaken => Self::new(
                Code::FunctionExists,
                "a function of this name exists; update it with PUT or PATCH, or upload under its name",
            ),
            RegistryError::NotFound => function_not_found(),
            RegistryError::Conflict => {
                Self::new(Code::UpdateConflict, "another version was published meanwhile; look at it, then try again")
            }
            RegistryError::Store(error) => error.into(),
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::NotFound => Self::new(Code::FileNotFound, "this file is not kept any more"),
            ArtifactError::Store(error) => error.into(),
        }
    }
}

impl From<ExecuteError> for ApiError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::NoCapacity { reason, retry_after } => {
                Self::new(Code::NoCapacity, format!("no capacity: {reason}; try again shortly"))
                    .retry_after(retry_after)
            }
            ExecuteError::TooManyCalls { reason, retry_after } => {
                Self::new(Code::TooManyRequests, format!("{reason}; wait for one to end")).retry_after(retry_after)
            }
            ExecuteError::Draining => draining(),
            ExecuteError::Stale | ExecuteError::Withdrawn => {
                Self::new(Code::NoCapacity, "no worker kept a sandbox for this call; try again shortly")
            }
            ExecuteError::Unreachable(message) => {
                Self::new(Code::NoCapacity, format!("no worker can be reached: {message}; try again shortly"))
            }
            ExecuteError::Unsupported(message) => Self::new(Code::RuntimeUnavailable, message),
            ExecuteError::Platform(message) => {
                Self::new(Code::PlatformError, format!("the platform could not run it: {message}"))
            }
        }
    }
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NotFound => {
                Self::new(Code::WorkerNotFound, "there is no such worker; GET /workers lists those that are heard of")
            }
            OrderError::Draining => Self::new(Code::Draining, "this worker is draining already, and ends when it has"),
            OrderError::Unreachable(why) => {
                Self::new(Code::WorkerUnreachable, format!("the worker can't be told: {why}; try again shortly"))
            }
        }
    }
}

impl From<BuildError> for ApiError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Rejected(words) => {
                Self::new(Code::CompileFailed, format!("the compiler refused the code: {words}"))
            }
            BuildError::NoCompiler(message) => Self::new(Code::CompileFailed, message),
            BuildError::Execute(error) => error.into(),
        }
    }
}

pub fn draining() -> ApiError {
    ApiError::new(Code::Draining, "this node is shutting down; send the call to another one, or try again shortly")
}

pub fn function_not_found() -> ApiError {
    ApiError::new(Code::FunctionNotFound, "there is no such function; GET /functions lists yours")
}

pub fn invocation_not_found() -> ApiError {
    ApiError::new(Code::InvocationNotFound, "there is no such invocation; check its id")
}
