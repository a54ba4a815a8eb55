//! A small HTTP client: keep-alive connections, answers with everything in them, and plain sockets for what no client would send.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::sse::Events;

/// Longer than any answer of a healthy daemon, shorter than a stuck test.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

pub type Error = Box<dyn std::error::Error + Send + Sync>;
type Connection = SendRequest<Full<Bytes>>;

/// One caller: an address and a key. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    key: Option<String>,
    tls: Option<TlsConnector>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Client {
    pub fn new(address: SocketAddr, key: String) -> Self {
        Self { address, key: Some(key), tls: None, idle: Arc::default() }
    }

    /// Stands in until there is a daemon.
    pub fn nowhere() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), key: None, tls: None, idle: Arc::default() }
    }

    /// The same caller over TLS, on connections of its own.
    pub fn over(self, tls: TlsConnector) -> Self {
        Self { tls: Some(tls), idle: Arc::default(), ..self }
    }

    /// The same daemon, another caller.
    pub fn as_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), idle: Arc::default(), ..self.clone() }
    }

    pub fn without_key(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn key(&self) -> &str {
        self.key.as_deref().expect("this caller has a key")
    }

    pub fn request(&self, method: Method, path: &str) -> Request {
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.key {
            headers.insert("x-api-key", key.parse().expect("a key is a header value"));
        }
        Request { client: self.clone(), method, path: path.to_owned(), headers, body: Bytes::new() }
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    pub fn post(&self, path: &str, json: &Value) -> Request {
        self.request(Method::POST, path).json(json)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(sender);
        };
        let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn idle_or_new(&self) -> Result<Connection, Error> {
        loop {
            let idle = self.idle.lock().expect("no holder panics").pop();
            let Some(mut connection) = idle else { return self.connect().await };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }

    /// A bare connection, for bytes that no client would send.
    pub async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the daemon accepts a connection")
    }

    /// Sends `bytes` on a connection of its own and reads until the daemon closes it or `patience` is over.
    pub async fn exchange(&self, bytes: &[u8], patience: Duration) -> String {
        let mut socket = self.socket().await;
        socket.write_all(bytes).await.expect("the daemon reads");
        read_for(&mut socket, patience).await
    }
}

/// All that comes until the end of the stream or of `patience`.
pub async fn read_for(socket: &mut TcpStream, patience: Duration) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request being put together.
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("a header value"));
        self
    }

    pub fn json(self, json: &Value) -> Self {
        self.header("content-type", "application/json").body(json.to_string())
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn build(self) -> (Client, http::Request<Full<Bytes>>) {
        let mut request = http::Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().expect("a path");
        *request.headers_mut() = self.headers;
        let host = self.client.address.to_string();
        request.headers_mut().insert("host", host.parse().expect("an address is a header value"));
        (self.client, request)
    }

    pub async fn try_send(self) -> Result<Answer, Error> {
        let (client, request) = self.build();
        let exchange = async {
            let mut connection = client.idle_or_new().await?;
            let (head, body) = connection.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            client.idle.lock().expect("no holder panics").push(connection);
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(ANSWER_LIMIT, exchange).await?
    }

    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: no answer: {error}"))
    }

    /// Sends on a connection of its own and hands out the body as it comes.
    pub async fn open(self) -> (u16, HeaderMap, Incoming) {
        let (client, request) = self.build();
        let mut connection = client.connect().await.expect("the daemon accepts a connection");
        let answer = connection.send_request(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), head.headers, body)
    }

    /// A stream of events; fails unless the answer is one.
    pub async fn events(self) -> Events {
        let (status, headers, body) = self.header("accept", "text/event-stream").open().await;
        if status != 200 {
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            panic!("expected a stream of events, got {status}: {}", String::from_utf8_lossy(&body));
        }
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "expected a stream of events, got {kind:?}");
        Events::new(body)
    }
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a plain header value"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The JSON body, given that the status is `status`.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The sentence and the code, given that this is the platform's refusal with `status`: one sentence, a code without
    /// spaces, and the request id that the header has.
    #[track_caller]
    pub fn refused(&self, status: u16) -> (String, String) {
        let body = self.expect(status);
        let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned();
        let (sentence, code) = (text("error"), text("code"));
        assert!(sentence.len() > 10 && !sentence.contains('\n'), "not one clear sentence: {sentence:?}");
        assert!(!code.is_empty() && code.chars().all(|c| c.is_ascii_alphanumeric()), "not a code: {code:?}");
        assert_eq!(Some(text("requestId").as_str()), self.header("x-request-id"), "the ids differ");
        (sentence, code)
    }
}
