//! One HTTP/2 connection to a worker: opened, greeted, proved on with every request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::identity::{self, Secret, Session};
use super::tls::FleetTls;
use super::wire;

/// A worker that is there answers at once; one that is not is better found out soon.
const CONNECT_FOR: Duration = Duration::from_secs(2);
/// How often a connection is asked whether its other end is still there, and for how long it may be silent then. A worker behind a
/// broken network is noticed within both together, and what it had is begun again elsewhere.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
const ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// What the other end may have sent that nobody has read, of one answer and of all.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// Nothing of it was sent: whoever it was for has not seen it.
    #[error("not sent: {0}")]
    Unsent(String),
    /// It may have been carried out.
    #[error("no answer: {0}")]
    Lost(String),
    /// The other end is not what it should be.
    #[error("refused: {0}")]
    Refused(String),
}

/// Cheap to clone: all clones are one connection.
#[derive(Clone)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    session: Arc<Session>,
}

impl Connection {
    pub async fn open(address: &str, secret: &Secret, tls: Option<&FleetTls>) -> Result<Self, Failed> {
        let opening = async {
            let unsent = |error: &dyn std::fmt::Display| Failed::Unsent(format!("connect to {address}: {error}"));
            let stream = TcpStream::connect(address).await.map_err(|error| unsent(&error))?;
            stream.set_nodelay(true).map_err(|error| unsent(&error))?;
            match tls {
                None => Self::greet(stream, secret).await,
                Some(tls) => {
                    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    let name = ServerName::try_from(host).map_err(|error| unsent(&error))?;
                    let stream = tls.connector.connect(name, stream).await.map_err(|error| unsent(&error))?;
                    Self::greet(stream, secret).await
                }
            }
        };
        let late = |_| Failed::Unsent(format!("connect to {address}: no answer within {CONNECT_FOR:?}"));
        tokio::time::timeout(CONNECT_FOR, opening).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Says hello, and goes on only with who knows the secret.
    async fn greet<S>(stream: S, secret: &Secret) -> Result<Self, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unsent = |error: hyper::Error| Failed::Unsent(format!("greet: {error}"));
        let (mut sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .keep_alive_while_idle(true)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(unsent)?;
        // Ends with the last sender, or when the other end is gone; each request hears of that by itself.
        tokio::spawn(async move { drop(connection.await) });
        let nonce = identity::nonce().map_err(|error| Failed::Unsent(format!("find random bits: {error}")))?;
        let hello = request(wire::HELLO, wire::HELLO_HEADER, &hex::encode(nonce), Bytes::new())?;
        let answer = sender.send_request(hello).await.map_err(unsent)?;
        if answer.status() == StatusCode::UPGRADE_REQUIRED {
            return Err(Failed::Refused("the worker speaks another version of the fleet's protocol".to_owned()));
        }
        let told = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let mut server = [0; 32];
        let greeting = told(wire::HELLO_HEADER).filter(|text| hex::decode_to_slice(text, &mut server).is_ok());
        let session = secret.session(&nonce, &server);
        let proof = greeting.and(told(wire::PROOF_HEADER));
        if !proof.is_some_and(|proof| session.is_greeting(proof)) {
            return Err(Failed::Refused("the worker does not know the fleet's secret".to_owned()));
        }
        Ok(Self { sender, session: Arc::new(session) })
    }

    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// The answer's head; its body is still to come.
    pub async fn send(&self, path: &'static str, body: Bytes) -> Result<Response<Incoming>, Failed> {
        let digest = identity::sha256(&body);
        let mut request = request(path, wire::DIGEST_HEADER, &hex::encode(digest), body)?;
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| Failed::Unsent(error.to_string()))?;
        // As late as can be: counts that stand in line would leave the other end's window.
        let proof = self.session.prove("POST", path, &digest);
        request.headers_mut().insert(wire::PROOF_HEADER, value(&proof)?);
        let answer = sender.try_send_request(request).await.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let why = error.into_error().to_string();
            if unsent { Failed::Unsent(why) } else { Failed::Lost(why) }
        })?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(Failed::Refused("the worker does not accept this node's proof".to_owned())),
            status => Err(Failed::Refused(format!("the worker answered {status}"))),
        }
    }
}

fn value(text: &str) -> Result<HeaderValue, Failed> {
    HeaderValue::from_str(text).map_err(|error| Failed::Unsent(error.to_string()))
}

fn request(path: &'static str, header: &'static str, text: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failed> {
    // An authority of its own, since the address may hold none that HTTP would take; nobody reads it.
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::builder()
        .scheme("http")
        .authority("faasd")
        .path_and_query(path)
        .build()
        .map_err(|error| Failed::Unsent(error.to_string()))?;
    request.headers_mut().insert(wire::VERSION_HEADER, HeaderValue::from_static(wire::VERSION));
    request.headers_mut().insert(header, value(text)?);
    Ok(request)
}
