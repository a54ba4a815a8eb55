//! S3 in memory, fast, over its real protocol: for tests of throughput and chaos. Path style, whole objects held as bytes.
//!
//! Buckets; objects put (also only if none is there), got (also in part), headed, copied, deleted one or many; lists, version 2;
//! uploads in parts. It asks for no signature. What it does not do is answered 501 NotImplemented.
//!
//! Another process tells it by HTTP at `/-/`, which is no bucket's name: `PUT /-/faults` with [`Faults`] as JSON, `PUT /-/reset`,
//! `GET /-/requests`.

mod body;
mod listing;
mod objects;
mod refusal;
mod uploads;
mod xml;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;

use super::faults::{Fault, Faults, Generator};
use super::listener::{Listener, Site};
use objects::Bucket;
use refusal::{Answer, Refusal};

/// A running server; ended when dropped.
pub struct FastS3 {
    server: Arc<Server>,
    listener: Listener,
}

#[derive(Default)]
struct Server {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    generator: Mutex<Generator>,
    requests: Mutex<BTreeMap<String, u64>>,
}

/// What is asked for.
struct Call<'r> {
    method: &'r Method,
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: &'r HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn asks(&self, parameter: &str) -> Option<&str> {
        self.query.get(parameter).map(String::as_str)
    }
}

impl FastS3 {
    pub fn start() -> Self {
        let server = Arc::new(Server::default());
        Self { listener: Listener::start("s3", server.clone()), server }
    }

    pub fn endpoint(&self) -> String {
        self.listener.endpoint()
    }

    pub fn faults(&self, faults: Faults) {
        *self.server.generator.lock().unwrap() = Generator::new(faults);
    }

    /// Makes a bucket, if it isn't there.
    pub fn create(&self, bucket: &str) {
        self.server.buckets.lock().unwrap().entry(bucket.to_owned()).or_default();
    }

    /// Changes a byte of a stored object behind the store's back.
    pub fn damage(&self, bucket: &str, key: &str) {
        self.server.buckets.lock().unwrap().get_mut(bucket).unwrap().damage(key);
    }

    /// Requests answered so far, by operation.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.server.requests.lock().unwrap().clone()
    }
}

/// `%41` is `A`; `+` a space in a query alone.
fn decoded(text: &str, is_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (byte, length) = match (first, after.get(..2).and_then(hex)) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) if is_query => (b' ', 1),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Server {
    fn act(&self, call: &Call<'_>) -> Answer {
        let mut buckets = self.buckets.lock().unwrap();
        match (call.method.as_str(), &*call.bucket, &*call.key) {
            ("GET", "", "") => return Ok(listing::buckets(&buckets)),
            ("PUT", bucket, "") if call.query.is_empty() => {
                if buckets.contains_key(bucket) {
                    return Err(Refusal::new(409, "BucketAlreadyOwnedByYou", "You already own this bucket."));
                }
                buckets.insert(bucket.to_owned(), Bucket::default());
                return Ok(Response::new(Full::default()));
            }
            ("DELETE", bucket, "") if call.query.is_empty() && buckets.contains_key(bucket) => {
                if !buckets[bucket].is_empty() {
                    return Err(Refusal::new(409, "BucketNotEmpty", "The bucket you tried to delete is not empty"));
                }
                buckets.remove(bucket);
                return Ok(refusal::empty(204));
            }
            ("PUT", _, key)
                if !key.is_empty() && call.header("x-amz-copy-source").is_some() && call.query.is_empty() =>
            {
                return objects::copy(&mut buckets, call);
            }
            _ => {}
        }
        let bucket = buckets.get_mut(&call.bucket);
        let bucket = bucket.ok_or_else(|| Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist"))?;
        let asks = |name: &str| call.query.contains_key(name);
        match (call.method.as_str(), &*call.key) {
            ("HEAD", "") => Ok(Response::new(Full::default())),
            ("GET", "") if call.asks("list-type") == Some("2") => bucket.list(call),
            ("GET", "") if asks("uploads") => Ok(bucket.list_uploads(call)),
            ("POST", "") if asks("delete") => bucket.delete_many(call),
            (_, "") => Err(Refusal::not_implemented()),
            ("POST", _) if asks("uploads") => Ok(bucket.begin_upload(call)),
            ("PUT", _) if asks("partNumber") && call.header("x-amz-copy-source").is_none() => bucket.put_part(call),
            ("POST", _) if asks("uploadId") => bucket.complete_upload(call),
            ("DELETE", _) if asks("uploadId") => bucket.abort_upload(call),
            (_, _) if !call.query.is_empty() => Err(Refusal::not_implemented()),
            ("PUT", _) => bucket.put(call),
            ("GET" | "HEAD", _) => bucket.get(call),
            ("DELETE", _) => Ok(bucket.delete(call)),
            _ => Err(Refusal::not_implemented()),
        }
    }

    /// What a test in another process says.
    fn told(&self, method: &Method, what: &str, body: &[u8]) -> Response<Full<Bytes>> {
        match (method.as_str(), what) {
            ("PUT", "faults") => match serde_json::from_slice(body) {
                Ok(faults) => *self.generator.lock().unwrap() = Generator::new(faults),
                Err(_) => return refusal::empty(400),
            },
            ("PUT", "reset") => self.buckets.lock().unwrap().clear(),
            ("GET", "requests") => {
                let counts = serde_json::to_vec(&*self.requests.lock().unwrap()).unwrap_or_default();
                return Response::new(Full::new(Bytes::from(counts)));
            }
            _ => return refusal::empty(404),
        }
        refusal::empty(200)
    }
}

impl Site for Server {
    const BODY_MAX: usize = 256 << 20;

    async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_start_matches('/');
        if let Some(what) = path.strip_prefix("-/") {
            return self.told(&head.method, what, &body);
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name, true), decoded(value, true))
        };
        let query = head.uri.query().unwrap_or_default().split('&').filter(|text| !text.is_empty()).map(pair);
        // Some clients name the operation there.
        let query = query.filter(|(name, _)| name != "x-id").collect();
        let mut call = Call {
            method: &head.method,
            bucket: decoded(bucket, false),
            key: decoded(key, false),
            query,
            headers: &head.headers,
            body: Bytes::new(),
        };
        let fault = self.generator.lock().unwrap().draw();
        let answer = match body::checked(&call, body) {
            Err(refusal) => Err(refusal),
            Ok(body) => {
                call.body = body;
                match fault {
                    None => self.act(&call),
                    Some(Fault::Throttle) => Err(Refusal::new(503, "SlowDown", "Please reduce your request rate.")),
                    Some(Fault::Fail { done }) => {
                        if done {
                            let _ = self.act(&call);
                        }
                        Err(Refusal::new(500, "InternalError", "We encountered an internal error. Please try again."))
                    }
                    Some(Fault::Stall { done: true, time }) => {
                        let answer = self.act(&call);
                        tokio::time::sleep(time).await;
                        answer
                    }
                    Some(Fault::Stall { done: false, time }) => {
                        tokio::time::sleep(time).await;
                        self.act(&call)
                    }
                }
            }
        };
        let operation = format!("{} {}", call.method, if call.key.is_empty() { "bucket" } else { "object" });
        *self.requests.lock().unwrap().entry(operation).or_default() += 1;
        answer.unwrap_or_else(|refusal| refusal.response(&call.key))
    }
}
