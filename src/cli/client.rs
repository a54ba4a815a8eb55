//! A small HTTP/1.1 client: one request a connection, every wait and every answer bounded, failures turned into sentences.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::https::{self, Io};
use super::{ClientFlags, Failure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For requests that only look something up or note something down.
pub const SHORT: Duration = Duration::from_secs(60);
/// For calls and uploads: longer than the longest function may run and wait (900 s and 20 s by default), and than a build.
pub const LONG: Duration = Duration::from_secs(3600);
/// The largest answer is a record with its result and output, some 10 MiB, or a page of a hundred of them.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Where a daemon keeps its data if nobody says: that of `make run`, then the configuration's default.
const DATA_DIRS: [&str; 2] = ["./.faasd", "/var/lib/faasd"];

/// One daemon, and the key to speak to it with.
pub struct Client {
    host: String,
    port: u16,
    /// What the URL has before the route; no `/` at its end.
    prefix: String,
    url: String,
    key: Option<String>,
    /// Where the URL asks for TLS.
    tls: Option<TlsConnector>,
}

/// A request on its way to be sent.
pub struct Call<B> {
    pub method: &'static str,
    /// From the first `/`, with the query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: B,
    pub timeout: Duration,
}

impl Call<Full<Bytes>> {
    /// A request without a body.
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Full::default(), timeout: SHORT }
    }

    /// A request with a JSON body.
    pub fn json(method: &'static str, path: impl Into<String>, body: String) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { headers, body: Full::from(body), ..Self::new(method, path) }
    }
}

/// An answer whose body is still to be read.
pub struct Answer {
    pub status: StatusCode,
    pub body: Incoming,
    connection: Connection,
}

/// Ends the task that drives a connection when nobody reads from it any more.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Reads the URL and finds a key.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a URL that can't be used.
    pub fn new(flags: &ClientFlags) -> Result<Self, Failure> {
        let Place { secure, host, port, prefix } = split_url(&flags.url).map_err(Failure::Usage)?;
        let key = flags.api_key.clone().filter(|key| !key.is_empty()).or_else(|| key_file(flags.data_dir.as_deref()));
        let tls = if secure { Some(https::connector(flags.ca_file.as_deref())?) } else { None };
        Ok(Self { host, port, prefix, url: flags.url.clone(), key, tls })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the key goes over a network where others can read it.
    pub fn speaks_in_clear(&self) -> bool {
        let here = self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        self.tls.is_none() && !here
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    ///
    /// # Errors
    /// [`Failure::Platform`] where nobody answers, or not in time.
    pub async fn send<B>(&self, call: Call<B>) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let timeout = call.timeout;
        let request = self.request(call)?;
        let stream = self.connect().await?;
        let lost = |error: hyper::Error| Failure::Platform(format!("the connection to {} broke: {error}", self.url));
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = Connection(tokio::spawn(async move {
            // Its error is the request's error, which the sender reports.
            let _ = driver.await;
        }));
        let sent = tokio::time::timeout(timeout, sender.send_request(request)).await;
        let (parts, body) = sent.map_err(|_| self.late(timeout))?.map_err(lost)?.into_parts();
        Ok(Answer { status: parts.status, body, connection })
    }

    /// Sends a request and reads the whole answer as JSON.
    ///
    /// # Errors
    /// As [`Client::send`], and whatever the daemon refused.
    pub async fn fetch<B>(&self, call: Call<B>) -> Result<Value, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let timeout = call.timeout;
        let answer = self.send(call).await?;
        self.read(answer, timeout).await
    }

    /// The rest of an answer as JSON; `null` where there is none.
    ///
    /// # Errors
    /// What the daemon refused, and answers that break off, are too large or are not JSON.
    pub async fn read(&self, answer: Answer, timeout: Duration) -> Result<Value, Failure> {
        let (status, bytes) = self.collect(answer, timeout).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| {
            Failure::Platform(format!("{} answered, but not as faasd does: is it another service?", self.url))
        })
    }

    /// The rest of an answer, whatever it is.
    ///
    /// # Errors
    /// [`Failure::Platform`] where it breaks off, is too large or late.
    pub async fn collect(&self, answer: Answer, timeout: Duration) -> Result<(StatusCode, Bytes), Failure> {
        let Answer { status, body, connection, .. } = answer;
        let collected = tokio::time::timeout(timeout, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        drop(connection);
        match collected {
            Ok(Ok(body)) => Ok((status, body.to_bytes())),
            Ok(Err(error)) => Err(Failure::Platform(format!("the answer of {} broke off: {error}", self.url))),
            Err(_) => Err(self.late(timeout)),
        }
    }

    fn request<B>(&self, call: Call<B>) -> Result<Request<B>, Failure> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.prefix, call.path))
            .header(header::HOST, format!("{host}:{}", self.port))
            .header(header::USER_AGENT, concat!("faasd/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        request.body(call.body).map_err(|error| Failure::Usage(format!("this can't be sent over HTTP: {error}")))
    }

    async fn connect(&self) -> Result<Box<dyn Io>, Failure> {
        let stream = self.connect_tcp().await?;
        let Some(connector) = &self.tls else { return Ok(Box::new(stream)) };
        let shaking = https::secure(connector, &self.host, stream, &self.url);
        tokio::time::timeout(CONNECT_TIMEOUT, shaking).await.unwrap_or_else(|_| Err(self.late(CONNECT_TIMEOUT)))
    }

    async fn connect_tcp(&self) -> Result<TcpStream, Failure> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let error = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => {
                // One write a message must not wait for the acknowledgement of the one before; without it, it is only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        Err(Failure::Platform(format!(
            "no daemon answers at {} ({error}); start one with `faasd` or `make run`, or say where it is with --url or FAASD_URL",
            self.url
        )))
    }

    fn late(&self, timeout: Duration) -> Failure {
        Failure::Platform(format!("{} did not answer within {} s", self.url, timeout.as_secs()))
    }

    /// What an answer that is no success means to the user.
    pub fn refusal(&self, status: StatusCode, body: &[u8]) -> Failure {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut text = match answer["error"].as_str() {
            Some(error) => error.to_owned(),
            None => format!("{} answered {status}", self.url),
        };
        if let Some(code) = answer["code"].as_str() {
            text = format!("{text} [{code}]");
        }
        if let Some(id) = answer["requestId"].as_str() {
            text = format!("{text} (request {id})");
        }
        match status.as_u16() {
            401 if self.key.is_none() => Failure::Refused(format!(
                "{text}; no key was found: set FAASD_API_KEY, or point --data-dir at the daemon's data directory, \
                 whose admin.key you must be allowed to read"
            )),
            401 | 403 | 404 | 409 | 410 => Failure::Refused(text),
            429 | 500.. => Failure::Platform(text),
            _ => Failure::Usage(text),
        }
    }
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    secure: bool,
    host: String,
    port: u16,
    /// Before the route.
    prefix: String,
}

fn split_url(url: &str) -> Result<Place, String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(format!("{url}: a URL begins with https:// or http://, as http://127.0.0.1:8080 does")),
    };
    let (authority, prefix) = rest.split_once('/').map_or((rest, String::new()), |(authority, path)| {
        (authority, format!("/{path}").trim_end_matches('/').to_owned())
    });
    let wrong = || format!("{url}: no host and port can be read from it");
    let authority: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(wrong());
    }
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok(Place { secure, host: host.to_owned(), port, prefix })
}

/// The admin key that a daemon on this machine wrote, where it can be read.
fn key_file(data_dir: Option<&Path>) -> Option<String> {
    let folders = data_dir.map_or_else(|| DATA_DIRS.map(PathBuf::from).to_vec(), |folder| vec![folder.to_owned()]);
    let text = folders.iter().find_map(|folder| std::fs::read_to_string(folder.join("admin.key")).ok())?;
    Some(text.trim().to_owned()).filter(|key| !key.is_empty())
}

/// `text` as one part of a path or a query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let split = |url| split_url(url).unwrap();
        let place = |secure, host: &str, port, prefix: &str| Place {
            secure,
            host: host.to_owned(),
            port,
            prefix: prefix.to_owned(),
        };
        assert_eq!(split("http://127.0.0.1:8080"), place(false, "127.0.0.1", 8080, ""));
        assert_eq!(split("http://host/api/"), place(false, "host", 80, "/api"));
        assert_eq!(split("http://[::1]:9/"), place(false, "::1", 9, ""));
        assert_eq!(split("https://host"), place(true, "host", 443, ""));
        for bad in ["", "localhost:8080", "http://", "http://a b", "http://key@host", "http://:80"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_file_is_found_and_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(key_file(Some(folder.path())), None);
        std::fs::write(folder.path().join("admin.key"), "abc\n").unwrap();
        assert_eq!(key_file(Some(folder.path())).as_deref(), Some("abc"));
    }

    #[test]
    fn refusals_have_exit_codes_by_what_can_be_done() {
        let flags = ClientFlags {
            url: "http://x".into(),
            api_key: Some("k".into()),
            data_dir: None,
            ca_file: None,
            json: false,
        };
        let client = Client::new(&flags).unwrap();
        let code = |status: u16| client.refusal(StatusCode::from_u16(status).unwrap(), b"{}").code();
        assert_eq!([400, 413, 422].map(code), [2; 3]);
        assert_eq!([429, 500, 503, 504].map(code), [3; 4]);
        assert_eq!([401, 403, 404, 409, 410].map(code), [4; 5]);
        let body = br#"{"error":"no such function","code":"FunctionNotFound","requestId":"r"}"#;
        let text = client.refusal(StatusCode::NOT_FOUND, body).to_string();
        assert_eq!(text, "no such function [FunctionNotFound] (request r)");
    }

    #[test]
    fn parts_of_a_path_are_escaped() {
        assert_eq!(escape("a/b c?&ü"), "a%2Fb%20c%3F%26%C3%BC");
    }
}
