//! Connections to a worker: which of the two protocols, how many, and their orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::super::connection::{CONNECTION_WINDOW, STREAM_WINDOW};
use super::super::identity::Peer;
use super::super::tls::FleetTls;
use super::Server;

/// Two of each of a thousand controllers, and who looks at the metrics.
const CONNECTIONS_MAX: usize = 2048;
/// Calls of one connection at once; further ones wait at the controller.
const STREAMS_MAX: u32 = 1024;
const HEADERS_BYTES_MAX: u32 = 8 * 1024;
/// A connection that says nothing for so long at its beginning is closed.
const FIRST_BYTES_FOR: Duration = Duration::from_secs(5);
const HEADERS_FOR: Duration = Duration::from_secs(10);
/// How often a connection is asked whether its other end is still there, and how long it may be silent then.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// After the drain: for last answers on their way.
const END_FOR: Duration = Duration::from_secs(2);
/// After a failed accept (no descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How every HTTP/2 connection begins (RFC 9113, 3.4), and no request of HTTP/1 that is served here.
const PREFACE: &[u8; 3] = b"PRI";

/// Serves until `shutdown` resolves, which is when the worker has nothing left to do.
pub async fn serve(
    listener: TcpListener,
    server: Arc<Server>,
    tls: Option<FleetTls>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let (closing, close) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    // Beyond the bound it is closed at once.
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let (server, tls, close) = (server.clone(), tls.clone(), close.clone());
                    connections.spawn(async move {
                        server.connection(stream, from, tls, close).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Nobody listens: every connection has ended already.
    let _ = closing.send(true);
    let ended = tokio::time::timeout(END_FOR, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        connections.shutdown().await;
    }
}

impl Server {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
        tls: Option<FleetTls>,
        close: watch::Receiver<bool>,
    ) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = tls else {
            let Ok(Some(is_http2)) = tokio::time::timeout(FIRST_BYTES_FOR, begins_http2(&stream)).await else { return };
            return match is_http2 {
                true => Box::pin(self.http2(stream, from, close)).await,
                false => Box::pin(self.http1(stream, from, close)).await,
            };
        };
        match tokio::time::timeout(FIRST_BYTES_FOR, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Box::pin(self.http2(stream, from, close)).await,
                _ => Box::pin(self.http1(stream, from, close)).await,
            },
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => {}
        }
    }

    async fn http2<S>(self: Arc<Self>, stream: S, from: SocketAddr, mut close: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(Peer::default());
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(server.answer(&peer, from, request).await) }
        });
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            _ = &mut serving => {}
            _ = close.changed() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }

    async fn http1<S>(self: Arc<Self>, stream: S, from: SocketAddr, mut close: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(&Peer::default(), from, request).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_FOR)
            .max_buf_size(HEADERS_BYTES_MAX as usize)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            _ = &mut serving => {}
            _ = close.changed() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }
}

/// `None`: the connection ended before it could be told.
async fn begins_http2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await.ok().filter(|seen| *seen > 0)?;
        if first[..seen] != PREFACE[..seen] {
            return Some(false);
        }
        if seen == PREFACE.len() {
            return Some(true);
        }
        // A client that sends its first bytes one by one: peek would return at once.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
