//! A server on a thread of its own, for what stands in for AWS: HTTP/1.1 on a loopback port that the kernel gives.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Answers whole requests.
pub trait Site: Send + Sync + 'static {
    /// Bytes that a request's body may have.
    const BODY_MAX: usize;

    fn answer(self: Arc<Self>, request: Request<Bytes>) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Serves until it is dropped; no connection is left then.
pub struct Listener {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start<S: Site>(name: &str, site: Arc<S>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, site) => {}
                    _ = ended => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve).unwrap();
        Self { address, end: Some(end), thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end.take());
        // Its runtime ends its connections. A thread that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept<S: Site>(listener: TcpListener, site: Arc<S>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, site.clone()))),
            // Out of descriptors: some will be given back.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn serve<S: Site>(stream: TcpStream, site: Arc<S>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(whole(site, request).await) }
    });
    // A client that hangs up is no news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn whole<S: Site>(site: Arc<S>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match Limited::new(body, S::BODY_MAX).collect().await {
        Ok(body) => site.answer(Request::from_parts(head, body.to_bytes())).await,
        Err(_) => Response::builder().status(413).body(Full::default()).unwrap(),
    }
}
