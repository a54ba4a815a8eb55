//! Requests to a router, and answers as tests look at them.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::rig::Rig;
use crate::controller::router;

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }

    /// That this is a failure of this code, in the one form that failures have.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
        assert_eq!(body["requestId"].as_str(), Some(self.header("x-request-id")));
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(body.as_object().unwrap().len(), 3);
        body["error"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn ok(&self) -> Value {
        let body = self.json();
        assert_eq!(self.status, StatusCode::OK, "{body}");
        assert!(!self.header("x-request-id").is_empty());
        body
    }
}

pub struct Ask<'a> {
    rig: &'a Rig,
    request: http::request::Builder,
}

impl Rig {
    pub fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        Ask { rig: self, request: Request::builder().method(method).uri(path) }
    }

    pub async fn get(&self, key: &str, path: &str) -> Reply {
        self.ask(Method::GET, path).key(key).send("").await
    }

    pub async fn post(&self, key: &str, path: &str, body: &str) -> Reply {
        self.ask(Method::POST, path).key(key).send(body.to_owned()).await
    }

    /// A Python function of Ann's named `echo`; its id.
    pub async fn echo(&self) -> String {
        let body = r#"{"name": "echo", "runtime": "python", "code": {"inline": "def handler(e): return e"}}"#;
        let reply = self.post(&self.ann, "/functions", body).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.body);
        reply.json()["functionId"].as_str().unwrap().to_owned()
    }

    pub async fn run(&self, input: &str) -> Reply {
        self.post(&self.ann, "/run", &run_body(input)).await
    }
}

pub fn run_body(input: &str) -> String {
    format!(r#"{{"name": "echo", "inputData": {input}}}"#)
}

impl Ask<'_> {
    pub fn key(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub async fn open(self, body: impl Into<Body>) -> Response {
        let request = self.request.body(body.into()).unwrap();
        router(self.rig.controller.clone()).oneshot(request).await.unwrap()
    }

    pub async fn send(self, body: impl Into<Body>) -> Reply {
        let (parts, body) = self.open(body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }
}

/// Reads a stream until `until` was read, or to its end; what was read.
pub async fn read_until(response: Response, until: &str) -> String {
    let (mut text, mut stream) = (String::new(), response.into_body().into_data_stream());
    while let Some(chunk) = stream.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        if !until.is_empty() && text.contains(until) {
            break;
        }
    }
    text
}

/// `id event` of each event in the text.
pub fn events(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let mut out = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(id) = line.strip_prefix("id: ") {
            let event = lines.next().and_then(|line| line.strip_prefix("event: ")).unwrap();
            out.push(format!("{id} {event}"));
        }
    }
    out
}
