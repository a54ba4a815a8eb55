//! The node: the one room that knows every adapter. Puts the roles together, runs them, and takes them down in order.
//!
//! ```text
//! build:  store → sandboxes → worker → controller → listener
//! down:   cordon → stop polling → drain → return leases → end sandboxes → flush → exit code      (a second signal: at once)
//! ```

mod identity;
mod memory;
mod metrics;
mod packages;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::adapters::audit_file::AuditFile;
use crate::adapters::embedded::{Embedded, OpenError};
use crate::adapters::key_set_file::KeySetFile;
use crate::adapters::key_set_web::KeySetWeb;
use crate::adapters::local_vault::{self, LocalVault};
use crate::adapters::system_clock::SystemClock;
use crate::config::{Config, Jwt, Role};
use crate::controller::auth::Tokens;
use crate::controller::tls::{Tls, TlsError};
use crate::controller::{self, Controller, ControllerPorts};
use crate::ports::clock::Clock;
use crate::ports::executor::LogSinks;
use crate::ports::key_set::{KeySetError, KeySetSource};
use crate::ports::sandbox::SandboxError;
use crate::sandbox::{self, LinuxSandboxes};
use crate::worker::{Identity, Machine, Metrics, Worker, WorkerPorts};

use packages::ZipPackages;

/// Exit code when the node could not start for a reason outside its configuration.
const EXIT_PLATFORM: u8 = 3;
/// Exit code when the configuration asks for what can't be had.
const EXIT_USAGE: u8 = 2;

/// Why a node could not start. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("role = \"{0}\" needs the fleet's backends, which this build does not have; run role = \"both\"")]
    Role(&'static str),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Vault(#[from] local_vault::OpenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Sandboxes(#[from] SandboxError),
    #[error("listen on {address}: {cause}; choose another with --listen")]
    Listen { address: std::net::SocketAddr, cause: std::io::Error },
    #[error("{step}: {cause}")]
    Step { step: &'static str, cause: String },
}

/// What a node is given by whoever starts it.
pub struct Surroundings {
    /// This executable, which sandboxes are launched by.
    pub executable: PathBuf,
    /// Where interpreters are looked for, as in `PATH`.
    pub path: String,
}

/// A node that is up: everything started, the listener bound.
pub struct Node {
    config: Arc<Config>,
    store: Embedded,
    sandboxes: Arc<LinuxSandboxes>,
    worker: Arc<Worker>,
    controller: Arc<Controller>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    /// Path of the admin key, if this start made it.
    new_key: Option<PathBuf>,
}

/// Runs a node until it is told to stop. The exit code.
pub async fn run(config: Config, surroundings: Surroundings) -> ExitCode {
    // Whatever is made here is nobody else's, unless it says so itself.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let signals = Signals::new();
    let node = match Node::build(config, &surroundings).await {
        Ok(node) => node,
        Err(error) => {
            tracing::error!(%error, "the node can't start");
            return ExitCode::from(if matches!(error, StartError::Role(_)) { EXIT_USAGE } else { EXIT_PLATFORM });
        }
    };
    match signals {
        Ok(signals) => node.run(signals).await,
        Err(error) => {
            tracing::error!(%error, "signals can't be watched");
            ExitCode::from(EXIT_PLATFORM)
        }
    }
}

/// The signals that end a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A sandbox takes some twenty descriptors and a connection one: the usual soft limit of 1 024 is for programs that use select(2).
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most).map(|()| most));
    match raised {
        Ok(most) => tracing::debug!(most, "open files allowed"),
        Err(error) => tracing::warn!(%error, "the limit on open files can't be raised"),
    }
}

impl Node {
    /// Starts everything, up to a listener that answers nobody yet.
    pub async fn build(mut config: Config, surroundings: &Surroundings) -> Result<Self, StartError> {
        match config.role {
            Role::Both => {}
            Role::Controller => return Err(StartError::Role("controller")),
            Role::Worker => return Err(StartError::Role("worker")),
        }
        // The launcher has another current directory than the daemon.
        config.data_dir = std::path::absolute(&config.data_dir).map_err(step("find the data directory"))?;
        raise_open_files();
        let tls = Tls::open(&config.tls)?;
        let vault = Arc::new(LocalVault::open(&config.secrets, &config.data_dir)?);
        // The vault has it; nobody else needs it.
        config.secrets.key.wipe();
        let config = Arc::new(config);
        let registry = prometheus::Registry::new();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Embedded::open_metered(&config.data_dir, &config, clock.clone(), vault, &registry)?;
        match store.end_abandoned(clock.now()).await {
            Ok(0) => {}
            Ok(records) => tracing::warn!(records, "ended calls that the last run left half-way"),
            Err(error) => tracing::warn!(%error, "calls that the last run left half-way stay open"),
        }
        let instance = identity::instance(&config.data_dir);
        let listener = bind(&config)?;
        let address = listener.local_addr().map_err(step("read the listener's address"))?;
        let sandboxes =
            LinuxSandboxes::open(config.clone(), &instance, &surroundings.executable, &surroundings.path).await?;
        sandboxes.register(&registry);
        let sandboxes = Arc::new(sandboxes);
        // One role so far: the match above refused the others.
        metrics::register(&registry, sandboxes.clone(), "both").map_err(step("register the node's metrics"))?;
        let packages = Arc::new(ZipPackages::new(config.limits.clone()));
        let worker = Worker::new(
            WorkerPorts {
                sandboxes: sandboxes.clone(),
                packages: packages.clone(),
                queue: store.queue.clone(),
                invocations: store.invocations.clone(),
                registry: store.registry.clone(),
                artifacts: store.artifacts.clone(),
                bus: store.bus.clone(),
                lessons: store.lessons.clone(),
                clock: clock.clone(),
            },
            config.clone(),
            Identity {
                id: identity::worker_id(),
                address: address.to_string(),
                machine: Machine::detect(),
                runtimes: sandboxes.runtimes(),
            },
            Arc::new(Metrics::new(&registry)),
        )
        .map_err(step("open the code cache"))?;
        let tokens = tokens(&config.auth.jwt, clock.monotonic()).await?;
        let audit = AuditFile::open(&config.data_dir, config.audit.clone()).map_err(step("open the audit log"))?;
        let controller = Controller::new(
            ControllerPorts {
                registry: store.registry.clone(),
                invocations: store.invocations.clone(),
                queue: store.queue.clone(),
                dead_letters: store.dead_letters.clone(),
                artifacts: store.artifacts.clone(),
                keys: store.keys.clone(),
                tokens,
                audit: Arc::new(audit),
                bus: store.bus.clone(),
                buckets: None,
                clock: clock.clone(),
                executor: worker.clone(),
                builder: worker.clone(),
                packages,
            },
            config.clone(),
            registry,
        );
        let listeners: Weak<dyn LogSinks> = Arc::downgrade(&(controller.clone() as Arc<dyn LogSinks>));
        worker.listen(listeners);
        worker.recall().await;
        worker.start();
        let new_key = controller::auth::ensure_admin_key(store.keys.as_ref(), &config.data_dir, clock.now())
            .await
            .map_err(step("make the admin key"))?;
        controller.audit_start(&config, new_key.is_some()).await.map_err(step("begin the audit log"))?;
        std::fs::write(config.data_dir.join("address"), address.to_string()).map_err(step("write the address file"))?;
        Ok(Self { config, store, sandboxes, worker, controller, listener, tls, new_key })
    }

    /// Serves until a signal, then takes everything down.
    async fn run(self, mut signals: Signals) -> ExitCode {
        self.greet();
        // What only the start needed.
        sandbox::release_code();
        sandbox::release_heap();
        let Self { config, store, sandboxes, worker, controller, listener, tls, .. } = self;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(controller::serve(listener, controller.clone(), tls, async {
            // Either way it is time to stop.
            let _ = stopped.await;
        }));
        let name = tokio::select! {
            name = signals.next() => name,
            () = memory::give_back() => signals.next().await,
        };
        tracing::info!(signal = name, drain_ms = config.shutdown.drain_ms, "stopping: running calls may finish");
        let down = async {
            controller.audit_drain(name).await;
            // Nobody listens only if the server has ended already.
            let _ = stop.send(());
            let within = Duration::from_millis(config.shutdown.drain_ms);
            let (finished, served) = tokio::join!(worker.drain(within), serving);
            if let Err(error) = served {
                tracing::error!(%error, "the server failed");
            }
            sandboxes.close().await;
            store.close().await;
            let _ = std::fs::remove_file(config.data_dir.join("address"));
            finished
        };
        tokio::select! {
            finished = down => {
                tracing::info!(all_calls_finished = finished, "stopped");
                ExitCode::SUCCESS
            }
            again = signals.next() => {
                tracing::warn!(signal = again, "second signal: ending at once");
                // The launcher ends the sandboxes when this process is gone; what was accepted is in the store.
                #[allow(clippy::disallowed_methods, reason = "asked to end without finishing anything")]
                std::process::exit(i32::from(EXIT_PLATFORM))
            }
        }
    }

    /// Says what runs, where, and what to do next.
    fn greet(&self) {
        for warning in self.sandboxes.warnings() {
            tracing::warn!(weakness = %warning, "ISOLATION IS WEAKER THAN IT SHOULD BE");
        }
        let interpreters = self.sandboxes.interpreters();
        for problem in [&interpreters.python, &interpreters.node].into_iter().filter_map(|found| found.as_ref().err()) {
            tracing::warn!(%problem, "a runtime is not available");
        }
        let Ok(address) = self.listener.local_addr() else { return };
        tracing::info!(
            %address,
            data_dir = %self.config.data_dir.display(),
            cgroups = self.sandboxes.cgroups(),
            version = env!("CARGO_PKG_VERSION"),
            "faasd is up"
        );
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        if self.tls.is_none() && !address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                %address,
                "KEYS AND PAYLOADS TRAVEL IN CLEAR: others can reach this address and no certificate is set; set tls.certificate \
                 and tls.key, or let only a proxy with TLS reach it"
            );
        }
        if let Some(path) = &self.new_key {
            tracing::info!(path = %path.display(), "made the admin key; only this file has it");
            tracing::info!(
                "try: curl -H \"x-api-key: $(cat {})\" {scheme}://{address}/functions",
                absolute(path).display()
            );
        }
    }
}

/// What checks tokens, where they are accepted. A key set that can't be had now is no reason not to start.
async fn tokens(config: &Jwt, now: Duration) -> Result<Option<Tokens>, StartError> {
    let source = if config.enabled { key_set(config).map_err(step("set up auth.jwt.jwks_url"))? } else { None };
    let tokens = Tokens::new(config, source).map_err(step("set up auth.jwt"))?;
    if let Some(tokens) = &tokens
        && let Err(error) = tokens.prepare(now).await
    {
        tracing::warn!(%error, "the key set for tokens can't be had yet; it is asked for again when a token comes");
    }
    Ok(tokens)
}

fn key_set(config: &Jwt) -> Result<Option<Arc<dyn KeySetSource>>, KeySetError> {
    if !config.jwks_file.as_os_str().is_empty() {
        return Ok(Some(Arc::new(KeySetFile::new(config.jwks_file.clone()))));
    }
    if config.jwks_url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(KeySetWeb::new(&config.jwks_url, &config.jwks_ca_file)?)))
}

/// Connections that the kernel holds for us until they are accepted. With the usual 128, a client that opens a few hundred at once waits
/// a second for those it drops. The kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: u32 = 4096;

fn bind(config: &Config) -> Result<TcpListener, StartError> {
    let address = config.listen;
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|cause| StartError::Listen { address, cause })
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn step<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> StartError {
    move |error| StartError::Step { step, cause: error.to_string() }
}
