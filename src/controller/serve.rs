//! The HTTP server: its own accept loop on hyper, so that connections are counted, idle ones are cheap, slow heads are cut off
//! and shutdown is orderly.
//!
//! Heads are timed by a sweep over all connections rather than by a timer each: a connection that says nothing between two
//! requests is idle, which is allowed for long; one that has begun a head must end it within `http.header_timeout_ms`, and one
//! that doesn't take its answer is cut off after `http.write_timeout_ms`.

mod activity;
mod at_once;
mod handshakes;
mod places;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use http::header::{CONNECTION, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tower::ServiceExt;

use super::Controller;
use super::api;
use super::cors::{self, Cors};
use super::error::{ApiError, render};
use super::headers;
use super::ids;
use super::tls::Tls;

use activity::{Activity, Patience, Watched};
use at_once::AtOnce;
use handshakes::Handshakes;
use places::{Place, Places};
use transport::Transport;

/// How often connections are looked over.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// A connection that has had no request for so long is closed.
const IDLE_FOR: Duration = Duration::from_secs(300);
/// After a failed accept (no descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The first byte of every TLS connection: a record of type handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long, and how much, a client that speaks HTTP to the HTTPS port is listened to after it was told so.
const MISTAKEN_FOR: Duration = Duration::from_secs(1);
const MISTAKEN_BYTES_MAX: u64 = 64 * 1024;

/// Serves until `shutdown` resolves, then finishes what is in flight, within `shutdown.drain_ms`, and returns.
pub async fn serve(
    listener: TcpListener,
    controller: Arc<Controller>,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let _following = tls.clone().map(|tls| AbortOnDrop(tokio::spawn(tls.follow()).abort_handle()));
    let server = Arc::new(Server::new(controller, tls));
    let mut connections = JoinSet::new();
    let mut watched: Vec<(Arc<Activity>, AbortHandle)> = Vec::new();
    let (closing, close) = watch::channel(false);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    // It rests while nobody is connected, and must not make up for that.
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(place) = server.place(peer) {
                        let activity = Arc::new(Activity::new(server.tick.load(Ordering::Relaxed)));
                        let connection = server.clone().connection(stream, peer, activity.clone(), place, close.clone());
                        watched.push((activity, connections.spawn(connection)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick(), if !watched.is_empty() => server.sweep(&mut watched),
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    server.controller.drain();
    // Nobody listens: every connection has ended already.
    let _ = closing.send(true);
    finish(&server.controller, &mut connections).await;
}

/// Waits for connections, then for calls that nobody waits for any more.
async fn finish(controller: &Controller, connections: &mut JoinSet<()>) {
    let deadline = Instant::now() + Duration::from_millis(controller.config.shutdown.drain_ms);
    let closed = tokio::time::timeout_at(deadline, async { while connections.join_next().await.is_some() {} }).await;
    if closed.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut off at the end of the drain time");
        connections.shutdown().await;
    }
    let ended = async {
        controller.calls.empty().await;
        controller.steps.empty().await;
    };
    if tokio::time::timeout_at(deadline, ended).await.is_err() {
        tracing::warn!(calls = controller.calls_running(), "calls still run at the end of the drain time");
    }
}

/// Ends a task that outlives its use.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Server {
    controller: Arc<Controller>,
    router: axum::Router,
    places: Arc<Places>,
    tls: Option<(Arc<Tls>, Arc<Handshakes>)>,
    cors: Option<Cors>,
    patience: Patience,
    /// Sweeps so far: a coarse clock that costs a request one load.
    tick: Arc<AtomicU32>,
}

impl Server {
    fn new(controller: Arc<Controller>, tls: Option<Arc<Tls>>) -> Self {
        let router = api::router(controller.clone());
        let http = &controller.config.http;
        let gauge = controller.metrics.connections.clone();
        Self {
            router,
            places: Places::new(http.connections_max, http.connections_per_address, gauge),
            tls: tls.map(|tls| (tls.clone(), Handshakes::new(tls.handshakes_max))),
            cors: Cors::new(&http.cors_origins),
            patience: Patience {
                head: ticks(Duration::from_millis(http.header_timeout_ms)),
                idle: ticks(IDLE_FOR),
                write: ticks(Duration::from_millis(http.write_timeout_ms)),
            },
            tick: Arc::new(AtomicU32::new(1)),
            controller,
        }
    }

    fn place(&self, peer: SocketAddr) -> Option<Place> {
        let taken = self.places.take(peer.ip());
        taken.inspect_err(|full| self.controller.metrics.rejected.with_label_values(&[full.as_str()]).inc()).ok()
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        activity: Arc<Activity>,
        _place: Place,
        mut close: watch::Receiver<bool>,
    ) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // What TLS and HTTP need is allocated at the first byte: a silent connection costs next to nothing.
        let mut first_byte = [0];
        tokio::select! {
            first = stream.peek(&mut first_byte) => if !matches!(first, Ok(1)) { return },
            _ = close.changed() => return,
        }
        let Some((tls, handshakes)) = &self.tls else {
            return Box::pin(self.http(Transport::Plain(stream), peer, activity, close)).await;
        };
        if first_byte != [TLS_HANDSHAKE] {
            return Box::pin(self.mistaken(stream)).await;
        }
        let shaken = tokio::select! {
            shaken = Box::pin(shake_hands(tls, handshakes, stream)) => shaken,
            _ = close.changed() => return,
        };
        match shaken {
            Some(transport) => {
                activity.request_ends(self.tick.load(Ordering::Relaxed));
                Box::pin(self.http(transport, peer, activity, close)).await;
            }
            None => self.controller.metrics.rejected.with_label_values(&["tls_handshake"]).inc(),
        }
    }

    /// Says to a client that speaks plain HTTP what the port speaks.
    async fn mistaken(&self, mut stream: TcpStream) {
        let error = ApiError::invalid("this port speaks HTTPS: begin the URL with https://");
        let body = error.body(ids::invocation_id(self.controller.now()));
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let told = async {
            stream.write_all(&[head.as_bytes(), &body].concat()).await?;
            stream.shutdown().await?;
            // What is unread when a socket is closed resets the connection, and takes the answer along.
            tokio::io::copy(&mut stream.take(MISTAKEN_BYTES_MAX), &mut tokio::io::sink()).await
        };
        // A client that breaks off, or goes on for long, has been told all the same.
        let _ = tokio::time::timeout(MISTAKEN_FOR, told).await;
    }

    async fn http(
        self: Arc<Self>,
        transport: Transport,
        peer: SocketAddr,
        activity: Arc<Activity>,
        mut close: watch::Receiver<bool>,
    ) {
        let io = TokioIo::new(Watched::new(transport, activity.clone(), self.tick.clone()));
        let service = service_fn(|request: http::Request<Incoming>| {
            activity.request_begins();
            let (server, activity) = (self.clone(), activity.clone());
            // On the heap, so that between two requests the connection does not hold the room that answering one takes.
            Box::pin(async move {
                let response = server.answer(request, peer).await;
                // A streamed answer is not over yet; it closes its connection when it is.
                if !is_stream(&response) {
                    activity.request_ends(server.tick.load(Ordering::Relaxed));
                }
                Ok::<_, std::convert::Infallible>(response)
            })
        });
        let serving = http1::Builder::new()
            .header_read_timeout(None)
            .half_close(false)
            .max_header_size(self.controller.config.http.head_bytes_max)
            .max_buf_size(self.controller.config.http.head_bytes_max)
            .serve_connection(io, service);
        let serving = std::pin::pin!(serving);
        let mut serving = AtOnce::new(serving);
        // A client that breaks off is no news: what it asked for is recorded all the same.
        tokio::select! {
            _ = &mut serving => {}
            _ = close.changed() => {
                serving.get_mut().as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }

    /// What is the same for every request and answer, whatever the route.
    async fn answer(&self, request: http::Request<Incoming>, peer: SocketAddr) -> http::Response<Body> {
        let origin = self.cors.as_ref().map(|cors| cors.allowed(&request));
        let mut response = match headers::check(&request) {
            Err(error) => self.refused(error),
            Ok(()) => match origin.iter().flatten().find_map(|origin| Cors::preflight(&request, origin)) {
                Some(preflight) => self.named(preflight),
                None => self.route(request, peer).await,
            },
        };
        headers::protect(response.headers_mut(), self.tls.is_some());
        if let Some(origin) = origin {
            cors::mark(response.headers_mut(), origin);
        }
        response
    }

    /// An answer to a head that nobody should have sent; the connection goes with it.
    fn refused(&self, error: ApiError) -> http::Response<Body> {
        self.controller.metrics.rejected.with_label_values(&[error.code.as_str()]).inc();
        let id = ids::invocation_id(self.controller.now());
        let mut response = render(error.into_response(), id);
        response.headers_mut().insert(api::REQUEST_ID, api::id_header(id));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// With an id, as every answer has.
    fn named(&self, mut response: http::Response<Body>) -> http::Response<Body> {
        let id = ids::invocation_id(self.controller.now());
        response.headers_mut().entry(api::REQUEST_ID).or_insert_with(|| api::id_header(id));
        response
    }

    async fn route(&self, request: http::Request<Incoming>, peer: SocketAddr) -> http::Response<Body> {
        let mut request = request.map(Body::new);
        if api::is_run(&request) {
            return api::run_at_once(&self.controller, request, peer.ip()).await;
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Closes connections whose head takes too long, whose client takes no answer, or that were idle for too long.
    fn sweep(&self, watched: &mut Vec<(Arc<Activity>, AbortHandle)>) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        watched.retain(|(activity, connection)| {
            if connection.is_finished() {
                return false;
            }
            if activity.is_overdue(tick, self.patience) {
                connection.abort();
                return false;
            }
            true
        });
    }
}

/// `None`: it failed, took too long, or made room for others.
async fn shake_hands(tls: &Tls, handshakes: &Arc<Handshakes>, stream: TcpStream) -> Option<Transport> {
    let mut handshake = handshakes.begin();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(tls.handshake_timeout, tls.acceptor().accept(stream)) => accepted,
        () = handshake.must_end() => return None,
    };
    match accepted {
        Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

fn is_stream(response: &http::Response<Body>) -> bool {
    response.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

fn ticks(time: Duration) -> u32 {
    time.as_millis().div_ceil(SWEEP_EVERY.as_millis()).try_into().unwrap_or(u32::MAX)
}
