//! The HTTP server: its own accept loop on hyper, so that connections are counted, idle ones are cheap, slow heads are cut off
//! and shutdown is orderly.
//!
//! Heads are timed by a sweep over all connections rather than by a timer each: a connection that says nothing between two
//! requests is idle, which is allowed for long; one that has begun a head must end it within `http.header_timeout_ms`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tower::ServiceExt;

use super::Controller;
use super::api;

/// How often connections are looked over.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// A connection that has had no request for so long is closed.
const IDLE_FOR: Duration = Duration::from_secs(300);
/// After a failed accept (no descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves, then finishes what is in flight, within `shutdown.drain_ms`, and returns.
pub async fn serve(listener: TcpListener, controller: Arc<Controller>, shutdown: impl Future<Output = ()>) {
    let server = Arc::new(Server::new(controller));
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
                    if let Some(place) = server.place() {
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

struct Server {
    controller: Arc<Controller>,
    router: axum::Router,
    open: Arc<AtomicUsize>,
    /// Sweeps so far: a coarse clock that costs a request one load.
    tick: AtomicU32,
}

/// One of the connections that may be open; given back when dropped.
struct Place {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }
}

impl Server {
    fn new(controller: Arc<Controller>) -> Self {
        let router = api::router(controller.clone());
        Self { controller, router, open: Arc::default(), tick: AtomicU32::new(1) }
    }

    fn place(&self) -> Option<Place> {
        let gauge = self.controller.metrics.connections.clone();
        gauge.inc();
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        let place = Place { open: self.open.clone(), gauge };
        if before < self.controller.config.http.connections_max {
            return Some(place);
        }
        self.controller.metrics.rejected.with_label_values(&["connections"]).inc();
        None
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: std::net::SocketAddr,
        activity: Arc<Activity>,
        _place: Place,
        mut close: watch::Receiver<bool>,
    ) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // What HTTP needs is allocated at the first byte: a silent connection costs next to nothing.
        let mut first_byte = [0];
        tokio::select! {
            first = stream.peek(&mut first_byte) => if !matches!(first, Ok(1)) { return },
            _ = close.changed() => return,
        }
        Box::pin(self.http(stream, peer, activity, close)).await;
    }

    async fn http(
        self: Arc<Self>,
        stream: TcpStream,
        peer: std::net::SocketAddr,
        activity: Arc<Activity>,
        mut close: watch::Receiver<bool>,
    ) {
        let io = TokioIo::new(Watched { stream, activity: activity.clone(), server: self.clone() });
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
        let serving = http1::Builder::new().header_read_timeout(None).half_close(false).serve_connection(io, service);
        tokio::pin!(serving);
        // A client that breaks off is no news: what it asked for is recorded all the same.
        tokio::select! {
            _ = serving.as_mut() => {}
            _ = close.changed() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }

    async fn answer(&self, request: http::Request<Incoming>, peer: std::net::SocketAddr) -> http::Response<Body> {
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

    /// Closes connections whose head takes too long, or that were idle for too long.
    fn sweep(&self, watched: &mut Vec<(Arc<Activity>, AbortHandle)>) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let head_ticks = ticks(Duration::from_millis(self.controller.config.http.header_timeout_ms));
        watched.retain(|(activity, connection)| {
            if connection.is_finished() {
                return false;
            }
            if activity.is_overdue(tick, head_ticks, ticks(IDLE_FOR)) {
                connection.abort();
                return false;
            }
            true
        });
    }
}

fn is_stream(response: &http::Response<Body>) -> bool {
    response.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream")
}

fn ticks(time: Duration) -> u32 {
    time.as_millis().div_ceil(SWEEP_EVERY.as_millis()).try_into().unwrap_or(u32::MAX)
}

/// What a connection is doing, in ticks of the sweep.
struct Activity {
    /// A request is being answered.
    busy: AtomicBool,
    /// When the head that is being read began; 0: none is.
    head_since: AtomicU32,
    idle_since: AtomicU32,
}

impl Activity {
    fn new(tick: u32) -> Self {
        Self { busy: AtomicBool::new(false), head_since: AtomicU32::new(0), idle_since: AtomicU32::new(tick) }
    }

    fn bytes_arrive(&self, tick: u32) {
        if !self.busy.load(Ordering::Relaxed) && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(tick, Ordering::Relaxed);
        }
    }

    fn request_begins(&self) {
        self.busy.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    fn request_ends(&self, tick: u32) {
        self.idle_since.store(tick, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }

    fn is_overdue(&self, tick: u32, head_ticks: u32, idle_ticks: u32) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            return false;
        }
        match self.head_since.load(Ordering::Relaxed) {
            0 => tick.saturating_sub(self.idle_since.load(Ordering::Relaxed)) > idle_ticks,
            since => tick.saturating_sub(since) > head_ticks,
        }
    }
}

/// A stream that tells its activity.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    server: Arc<Server>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_arrive(self.server.tick.load(Ordering::Relaxed));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_head_is_overdue_and_a_busy_connection_never() {
        let activity = Activity::new(1);
        assert!(!activity.is_overdue(100, 20, 600));
        assert!(activity.is_overdue(602, 20, 600));
        activity.bytes_arrive(100);
        activity.bytes_arrive(110);
        assert!(!activity.is_overdue(120, 20, 600));
        assert!(activity.is_overdue(121, 20, 600));
        activity.request_begins();
        activity.bytes_arrive(500);
        assert!(!activity.is_overdue(9999, 20, 600));
        activity.request_ends(9999);
        assert!(!activity.is_overdue(10_000, 20, 600));
    }
}
