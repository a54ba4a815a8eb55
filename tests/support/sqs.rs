//! SQS in memory, fast, over its real protocol (JSON 1.0): for tests of throughput and chaos, held to the suite that runs over the
//! functional emulator too. Its clock can be put forward, and it can be told to fail.
//!
//! In a program of its own (`tests/cloud/`) it is told by HTTP: `PUT /faults` with JSON, `PUT /pass` with milliseconds.

#[path = "sqs/protocol.rs"]
mod protocol;
#[path = "sqs/queue.rs"]
mod queue;
#[path = "sqs/refusal.rs"]
mod refusal;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::faults::{Fault, Faults, Generator};
use queue::Queue;
use refusal::{Answer, Error};

/// A request with ten messages of the largest size, escaped as badly as can be.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// A running server; ended when dropped.
pub struct FastSqs {
    address: SocketAddr,
    server: Arc<Server>,
    accepting: JoinHandle<()>,
}

pub struct Server {
    address: SocketAddr,
    queues: Mutex<HashMap<String, Queue>>,
    /// Told when a message of that queue may be there to be received.
    arrived: Mutex<HashMap<String, Arc<Notify>>>,
    generator: Mutex<Generator>,
    began: Instant,
    began_wall_ms: u64,
    shift_ms: AtomicU64,
    /// By action, for tests that count requests.
    requests: Mutex<HashMap<String, u64>>,
}

impl FastSqs {
    pub async fn start() -> Self {
        Self::listen("127.0.0.1:0").await
    }

    pub async fn listen(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let began_wall_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let server = Arc::new(Server {
            address,
            queues: Mutex::default(),
            arrived: Mutex::default(),
            generator: Mutex::default(),
            began: Instant::now(),
            began_wall_ms,
            shift_ms: AtomicU64::new(0),
            requests: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, server.clone()));
        Self { address, server, accepting }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a queue; its URL.
    pub fn create(&self, name: &str, attributes: &[(&str, &str)]) -> String {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.server.create(name, attributes)
    }

    /// That much time is over when this returns.
    pub fn pass(&self, time: Duration) {
        self.server.pass(time);
    }

    pub fn faults(&self, faults: Faults) {
        *self.server.generator.lock().unwrap() = Generator::new(faults);
    }

    /// Requests answered so far, by action.
    pub fn requests(&self) -> HashMap<String, u64> {
        self.server.requests.lock().unwrap().clone()
    }

    /// Ready, in flight, delayed.
    pub fn counts(&self, queue: &str) -> [usize; 3] {
        let now = self.server.now();
        self.server.queues.lock().unwrap().get_mut(queue).unwrap().counts(now)
    }
}

impl Drop for FastSqs {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    // Ends its connections when it is ended.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, server.clone()));
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    // A client that hangs up is no news.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Server {
    fn now(&self) -> Duration {
        self.began.elapsed() + Duration::from_millis(self.shift_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.began_wall_ms + self.now().as_millis() as u64
    }

    fn pass(&self, time: Duration) {
        self.shift_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        for arrived in self.arrived.lock().unwrap().values() {
            arrived.notify_waiters();
        }
    }

    fn arrived(&self, queue: &str) -> Arc<Notify> {
        self.arrived.lock().unwrap().entry(queue.to_owned()).or_default().clone()
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/000000000000/{name}", self.address)
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = http_body_util::Limited::new(request.into_body(), REQUEST_BYTES_MAX);
        let Ok(body) = body.collect().await else { return status(413) };
        let body = body.to_bytes();
        let Some(action) = target.as_deref().and_then(|target| target.strip_prefix("AmazonSQS.")) else {
            return self.told(&method, &path, &body);
        };
        let fault = self.generator.lock().unwrap().draw();
        let answer = match fault {
            None => self.act(action, &body).await,
            Some(Fault::Throttle) => Err(Error::throttled()),
            Some(Fault::Fail { done }) => {
                if done {
                    let _ = self.act(action, &body).await;
                }
                Err(Error::internal())
            }
            Some(Fault::Stall { done, time }) => {
                let answer = if done { Some(self.act(action, &body).await) } else { None };
                tokio::time::sleep(time).await;
                match answer {
                    Some(answer) => answer,
                    None => self.act(action, &body).await,
                }
            }
        };
        *self.requests.lock().unwrap().entry(action.to_owned()).or_default() += 1;
        match answer {
            Ok(json) => respond(200, None, json),
            Err(error) => respond(error.status, Some(error.query_error()), error.json()),
        }
    }

    async fn act(&self, action: &str, body: &[u8]) -> Answer {
        match action {
            "ReceiveMessage" => self.receive(body).await,
            _ => self.act_at_once(action, body),
        }
    }

    /// What a test in another process says.
    fn told(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        match (method.as_str(), path) {
            ("PUT", "/faults") => match serde_json::from_slice(body) {
                Ok(faults) => *self.generator.lock().unwrap() = Generator::new(faults),
                Err(_) => return status(400),
            },
            ("PUT", "/pass") => match std::str::from_utf8(body).ok().and_then(|text| text.trim().parse().ok()) {
                Some(ms) => self.pass(Duration::from_millis(ms)),
                None => return status(400),
            },
            _ => return status(404),
        }
        status(200)
    }
}

fn status(code: u16) -> Response<Full<Bytes>> {
    respond(code, None, Vec::new())
}

fn respond(code: u16, query_error: Option<String>, json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(code)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "00000000-0000-0000-0000-000000000000");
    if let Some(error) = query_error {
        response = response.header("x-amzn-query-error", error);
    }
    response.body(Full::new(Bytes::from(json))).unwrap()
}
