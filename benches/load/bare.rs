//! The bare hop: what a call would cost with nothing around it. hyper on one thread, plain loops in Python or C++ that take one
//! call at a time each, no sandbox, no pool, no record. The platform's own throughput is read against it, in the same run.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc};

use super::harness::native;
use super::server::{Server, record};

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

/// Gives every frame back as it came.
const NATIVE: &str = r"
#include <unistd.h>
#include <sys/socket.h>
static char buffer[1 << 20];
int main() {
    long filled = 0, got;
    while ((got = read(0, buffer + filled, sizeof buffer - filled)) > 0) {
        filled += got;
        if (filled < 4 || filled < 4 + *(unsigned *)buffer) continue;
        for (long sent = 0; sent < filled;) sent += write(0, buffer + sent, filled - sent);
        filled = 0;
    }
}
";

/// Idle workers: taken from one end, given back at the other.
struct Workers {
    idle: Mutex<mpsc::Receiver<UnixStream>>,
    back: mpsc::Sender<UnixStream>,
}

pub struct BareHop {
    pub server: Server,
    workers: Vec<Child>,
    _program: TempDir,
}

impl BareHop {
    /// Of `python` or `native` workers.
    pub fn start(language: &str) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let program = dir.path().join("worker");
        if language == "native" {
            native::compile(NATIVE, &program)?;
        }
        let mut links = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let (ours, theirs) = StdStream::pair()?;
            ours.set_nonblocking(true)?;
            let mut command = Command::new(if language == "native" { program.as_os_str() } else { "python3".as_ref() });
            if language == "python" {
                command.args(["-I", "-S", "-c", PYTHON]);
            }
            workers.push(command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?);
            links.push(ours);
        }
        let server = Server::start(move || {
            let workers = Rc::new(Workers::new(links)?);
            Ok(move |request| answer(workers.clone(), request))
        })?;
        Ok(Self { server, workers, _program: dir })
    }
}

impl Drop for BareHop {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

impl Workers {
    fn new(links: Vec<StdStream>) -> io::Result<Self> {
        let (back, idle) = mpsc::channel(WORKERS);
        for link in links {
            back.try_send(UnixStream::from_std(link)?).map_err(io::Error::other)?;
        }
        Ok(Self { idle: Mutex::new(idle), back })
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
    Ok(record(&result))
}
