//! The bare hop: what a call would cost with nothing around it. hyper on one thread, plain Python loops that take one call at a
//! time each, no sandbox, no pool, no record. The platform's own throughput is read against it, in the same run.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{Mutex, mpsc, oneshot};

/// As many as were best on two processors.
const WORKERS: usize = 4;

/// A frame is its length in four bytes, little-endian, and JSON.
const PYTHON: &str = r#"
import json, socket
link = socket.socket(fileno=0)
file = link.makefile('rb')
while head := file.read(4):
    answer = json.dumps(json.loads(file.read(int.from_bytes(head, 'little')))).encode()
    link.sendall(len(answer).to_bytes(4, 'little') + answer)
"#;

/// Idle workers: taken from one end, given back at the other.
struct Workers {
    idle: Mutex<mpsc::Receiver<UnixStream>>,
    back: mpsc::Sender<UnixStream>,
}

pub struct BareHop {
    pub address: SocketAddr,
    workers: Vec<Child>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl BareHop {
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut links = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let (ours, theirs) = StdStream::pair()?;
            ours.set_nonblocking(true)?;
            let mut command = Command::new("python3");
            command.args(["-I", "-S", "-c", PYTHON]).stdin(Stdio::from(OwnedFd::from(theirs)));
            workers.push(command.spawn()?);
            links.push(ours);
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                tokio::select! {
                    result = serve(listener, links) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        Ok(Self { address, workers, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for BareHop {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

async fn serve(listener: std::net::TcpListener, links: Vec<StdStream>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (back, idle) = mpsc::channel(WORKERS);
    for link in links {
        back.try_send(UnixStream::from_std(link)?).map_err(io::Error::other)?;
    }
    let workers = Rc::new(Workers { idle: Mutex::new(idle), back });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let workers = workers.clone();
        let service = service_fn(move |request| answer(workers.clone(), request));
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(workers: Rc<Workers>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let mut worker = workers.idle.lock().await.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    worker.write_all(&frame).await?;
    let length = worker.read_u32_le().await?;
    let mut result = vec![0; length as usize];
    worker.read_exact(&mut result).await?;
    let _ = workers.back.try_send(worker);
    let mut record = br#"{"status":"SUCCESS","startType":"WARM","result":"#.to_vec();
    record.extend_from_slice(&result);
    record.push(b'}');
    Ok(Response::new(Full::new(record.into())))
}
