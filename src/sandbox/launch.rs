//! The daemon's side of the launcher: starts it, talks to it, and starts another when it is gone.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::launcher::protocol::{MESSAGE_BYTES_MAX, Reply, Request, Scratch, Setup, Start};
use super::socket::Socket;
use super::sys;
use super::zygotes::Zygotes;
use crate::ports::sandbox::SandboxError;

/// Requests waiting to be sent.
const REQUESTS_MAX: usize = 1024;
/// How long the set-up (mounting the roots) may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Between a launcher that died and the next.
const RESTART_DELAY: Duration = Duration::from_millis(200);

type Answer<T> = oneshot::Sender<Result<T, SandboxError>>;

enum Order {
    Ask(Ask),
    Close,
}

enum Ask {
    Start(Box<Start>, Vec<OwnedFd>, Answer<Started>),
    Mount { slot: u32, code: PathBuf, scratch: Option<(Scratch, OwnedFd)>, answer: Answer<()> },
    Release { slot: u32 },
}

enum Pending {
    Start(Answer<Started>),
    Mount(Answer<()>),
}

/// A sandbox that the launcher made, once its runtime has begun.
pub struct Started {
    /// Of the first process.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Where its refused system calls are told; absent where the kernel or a container above allows no listener.
    pub listener: Option<OwnedFd>,
}

/// Speaks to whichever launcher lives. Cheap to clone.
#[derive(Clone)]
pub struct LauncherHandle {
    orders: mpsc::Sender<Order>,
    /// Launchers that were started because the one before died.
    pub restarts: Arc<AtomicU64>,
    pub zygotes: Zygotes,
}

fn failed(step: &'static str, cause: impl ToString) -> SandboxError {
    SandboxError::Failed { step, cause: cause.to_string() }
}

impl LauncherHandle {
    /// Starts a launcher and waits until it is ready. The task ends, and the launcher with it, when the last handle is gone.
    pub async fn start(setup: Setup, zygotes: Zygotes) -> Result<(Self, JoinHandle<()>), SandboxError> {
        let setup = Arc::new(setup);
        let connection = Connection::open(&setup).await?;
        let (orders, queue) = mpsc::channel(REQUESTS_MAX);
        let restarts = Arc::<AtomicU64>::default();
        let task = tokio::spawn(supervise(setup, connection, queue, restarts.clone(), zygotes.clone()));
        Ok((Self { orders, restarts, zygotes }, task))
    }

    pub async fn start_sandbox(&self, start: Start, fds: Vec<OwnedFd>) -> Result<Started, SandboxError> {
        let (answer, told) = oneshot::channel();
        self.order(Order::Ask(Ask::Start(Box::new(start), fds, answer))).await?;
        told.await.unwrap_or_else(|_| Err(failed("start a sandbox", "the launcher died")))
    }

    /// Shows `code` in the sandbox, and sizes the file system that its `/output` is in.
    pub async fn mount_code(
        &self,
        slot: u32,
        code: PathBuf,
        scratch: Option<(Scratch, OwnedFd)>,
    ) -> Result<(), SandboxError> {
        let (answer, told) = oneshot::channel();
        self.order(Order::Ask(Ask::Mount { slot, code, scratch, answer })).await?;
        told.await.unwrap_or_else(|_| Err(failed("mount code", "the launcher died")))
    }

    pub async fn release(&self, slot: u32) {
        // With the launcher its mounts are gone too.
        let _ = self.order(Order::Ask(Ask::Release { slot })).await;
    }

    /// Has the launcher end every sandbox and itself. The task of [`LauncherHandle::start`] ends when that is done.
    pub async fn close(&self) {
        let _ = self.order(Order::Close).await;
    }

    async fn order(&self, order: Order) -> Result<(), SandboxError> {
        self.orders.send(order).await.map_err(|_| SandboxError::Cancelled)
    }
}

/// One living launcher.
struct Connection {
    process: Child,
    socket: Socket,
    /// Holds the longest message.
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(setup: &Setup) -> Result<Self, SandboxError> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|error| failed("make the launcher's socket", error))?;
        let process = Command::new(&setup.executable)
            .arg("sandbox-launcher")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| failed("start the launcher", error))?;
        nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
            .map_err(|error| failed("make the launcher's socket", error))?;
        let socket = Socket::watch(ours).map_err(|error| failed("watch the launcher's socket", error))?;
        let mut connection = Self { process, socket, buffer: vec![0; MESSAGE_BYTES_MAX] };
        match connection.set_up(setup).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.end().await;
                Err(error)
            }
        }
    }

    async fn set_up(&mut self, setup: &Setup) -> Result<(), SandboxError> {
        self.send(&Request::Setup(setup.clone()), &[]).await?;
        match tokio::time::timeout(SETUP_TIMEOUT, self.receive()).await {
            Ok(Ok((Reply::Ready, _))) => Ok(()),
            Ok(Ok((Reply::Failed { step, cause, .. }, _))) => {
                Err(SandboxError::Unsupported(format!("sandboxes can't be made here: {step}: {cause}")))
            }
            Ok(Ok(_)) => Err(failed("set up the launcher", "an answer out of order")),
            Ok(Err(error)) => Err(failed("set up the launcher", error)),
            Err(_) => Err(failed("set up the launcher", "it took too long")),
        }
    }

    /// For one that could not be set up: nothing runs under it.
    async fn end(mut self) {
        let ended = tokio::task::spawn_blocking(move || self.process.kill().and_then(|()| self.process.wait()));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "launcher that failed can't be ended");
        }
    }

    async fn send(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<(), SandboxError> {
        let bytes = serde_json::to_vec(request).map_err(|error| failed("tell the launcher", error))?;
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let send = |socket: BorrowedFd<'_>| sys::send(socket, &bytes, &borrowed).map_err(std::io::Error::from);
        let sent = match send(self.socket.as_fd()) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => match self.socket.room() {
                Ok(room) => room.write(send).await,
                Err(error) => Err(error),
            },
            sent => sent,
        };
        sent.map_err(|error| failed("tell the launcher", error))
    }

    /// Nothing is lost where the future is dropped.
    async fn receive(&mut self) -> std::io::Result<(Reply, Vec<OwnedFd>)> {
        let Self { socket, buffer, .. } = self;
        loop {
            socket.readable().await?;
            let (length, fds) = match socket.try_read(|socket| sys::receive(socket, buffer).map_err(Into::into)) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                received => received?,
            };
            if length == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            return Ok((serde_json::from_slice(&buffer[..length])?, fds));
        }
    }
}

/// Serves orders with one launcher after the other.
async fn supervise(
    setup: Arc<Setup>,
    mut connection: Connection,
    mut queue: mpsc::Receiver<Order>,
    restarts: Arc<AtomicU64>,
    zygotes: Zygotes,
) {
    loop {
        let ended = serve(&mut connection, &mut queue, &zygotes).await;
        zygotes.forget();
        let mut process = connection.process;
        drop(connection.socket);
        // It ends its sandboxes first, so this may take a moment.
        let reaped = tokio::task::spawn_blocking(move || process.wait()).await;
        if ended {
            return;
        }
        tracing::error!(status = ?reaped.ok().and_then(Result::ok), "launcher died, starting another");
        connection = loop {
            tokio::time::sleep(RESTART_DELAY).await;
            match Connection::open(&setup).await {
                Ok(connection) => {
                    restarts.fetch_add(1, Ordering::Relaxed);
                    break connection;
                }
                Err(error) => tracing::error!(%error, "launcher does not start"),
            }
            if queue.is_closed() {
                return;
            }
        };
    }
}

/// `true`: nobody needs a launcher any more. `false`: this one is gone.
async fn serve(connection: &mut Connection, queue: &mut mpsc::Receiver<Order>, zygotes: &Zygotes) -> bool {
    let mut pending: HashMap<u32, Pending> = HashMap::new();
    loop {
        tokio::select! {
            order = queue.recv() => {
                let (request, fds) = match order {
                    None | Some(Order::Close) => return true,
                    Some(Order::Ask(ask)) => request_of(ask, &mut pending),
                };
                if connection.send(&request, &fds).await.is_err() {
                    return false;
                }
            }
            reply = connection.receive() => {
                let Ok((reply, fds)) = reply else { return false };
                settle(&mut pending, reply, fds, zygotes);
            }
        }
    }
}

/// What to send for an order, with its answer kept for when it comes.
fn request_of(ask: Ask, pending: &mut HashMap<u32, Pending>) -> (Request, Vec<OwnedFd>) {
    match ask {
        Ask::Start(start, fds, answer) => {
            pending.insert(start.slot, Pending::Start(answer));
            (Request::Start(*start), fds)
        }
        Ask::Mount { slot, code, scratch, answer } => {
            pending.insert(slot, Pending::Mount(answer));
            let (scratch, output) = scratch.unzip();
            (Request::Mount { slot, code, scratch }, output.into_iter().collect())
        }
        Ask::Release { slot } => (Request::Release { slot }, Vec::new()),
    }
}

fn settle(pending: &mut HashMap<u32, Pending>, reply: Reply, fds: Vec<OwnedFd>, zygotes: &Zygotes) {
    match reply {
        Reply::Zygote { program, lives, cause } => zygotes.tell(program, lives, cause),
        Reply::Started { slot, pid, forked } => {
            zygotes.began(forked);
            let mut fds = fds.into_iter();
            if let (Some(Pending::Start(answer)), Some(pidfd)) = (pending.remove(&slot), fds.next()) {
                let _ = answer.send(Ok(Started { pid, pidfd, listener: fds.next() }));
            }
        }
        Reply::Mounted { slot } => {
            if let Some(Pending::Mount(answer)) = pending.remove(&slot) {
                let _ = answer.send(Ok(()));
            }
        }
        Reply::Failed { slot: Some(slot), step, cause } => {
            let cause = format!("{step}: {cause}");
            match pending.remove(&slot) {
                Some(Pending::Start(answer)) => drop(answer.send(Err(failed("start a sandbox", cause)))),
                Some(Pending::Mount(answer)) => drop(answer.send(Err(failed("mount code", cause)))),
                None => {}
            }
        }
        Reply::Ready | Reply::Failed { slot: None, .. } => {}
    }
}
