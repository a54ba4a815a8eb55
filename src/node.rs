//! The node: the one room that knows every adapter. Puts the roles together, runs them, and takes them down in order.
//!
//! ```text
//! build:  backends → sandboxes → worker → controller → listener          (a role has the worker, the controller, or both)
//! down:   let the fleet's address go → cordon → stop polling → drain → return leases → end sandboxes → flush → exit code      (a second signal: at once)
//! ```

mod backends;
mod controls;
mod disk;
mod identity;
mod leader;
mod memory;
mod metrics;
mod notices;
mod packages;
mod service;
mod works;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::adapters::disk_space::DiskSpace;
use crate::adapters::embedded::OpenError;
use crate::adapters::local_vault::{self, LocalVault};
use crate::adapters::system_clock::SystemClock;
use crate::config::{Backend, Config, Role};
use crate::controller;
use crate::controller::tls::{Tls, TlsError};
use crate::fleet::{self, FleetTlsError, Keeper, SecretError};
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;
use crate::ports::sandbox::SandboxError;
use crate::sandbox;

use backends::Backends;
use controls::{Controls, Runs};
use packages::ZipPackages;
use works::{AbortOnDrop, Door, Made, Works};

/// Exit code when the node could not start for a reason outside its configuration.
const EXIT_PLATFORM: u8 = 3;
/// Exit code when the configuration asks for what can't be had.
const EXIT_USAGE: u8 = 2;

/// Why a node could not start. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("backend = \"{0}\" can't be opened by this build; run role = \"both\" with backend = \"embedded\"")]
    Backend(&'static str),
    #[error(
        "fleet.advertise must be set: this machine's own address can't be found, and controllers can't reach a worker at {0}"
    )]
    Advertise(std::net::SocketAddr),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    FleetTls(#[from] FleetTlsError),
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

/// What a drain takes beyond its time: ending what it did not wait for, closing, writing what is still to be written.
const DRAIN_EXTRA: Duration = Duration::from_secs(60);

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
    backends: Backends,
    works: Option<Works>,
    controls: Option<Controls>,
    door: Option<Door>,
    /// The controller's.
    listener: Option<TcpListener>,
    address: std::net::SocketAddr,
    tls: Option<Arc<Tls>>,
    beating: Option<AbortOnDrop>,
    watching: AbortOnDrop,
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
            return ExitCode::from(if error.is_usage() { EXIT_USAGE } else { EXIT_PLATFORM });
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

impl StartError {
    /// Whether the configuration asks for what can't be had.
    fn is_usage(&self) -> bool {
        matches!(self, StartError::Backend(_) | StartError::Advertise(_))
    }
}

impl Node {
    /// Starts everything, up to a listener that answers nobody yet.
    pub async fn build(mut config: Config, surroundings: &Surroundings) -> Result<Self, StartError> {
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
        let backends = Backends::open(&config, clock.clone(), vault, &registry).await?;
        let (listener, door) = listeners(&config)?;
        let bound = listener.as_ref().or(door.as_ref()).map(TcpListener::local_addr);
        let address = bound.unwrap_or(Ok(config.listen)).map_err(step("read the listener's address"))?;
        let id = identity::worker_id();
        let packages = Arc::new(ZipPackages::new(config.limits.clone()));
        let disk = Arc::new(DiskSpace::new(&config.data_dir, config.disk.free_bytes_min));
        let mut works = match config.role {
            Role::Controller => None,
            Role::Worker | Role::Both => {
                let shown = match &door {
                    Some(door) => {
                        let at = door.local_addr().map_err(step("read the address for other nodes"))?;
                        works::advertised(&config, at)?
                    }
                    None => address.to_string(),
                };
                let made =
                    Made { id, address: shown, clock: clock.clone(), packages: packages.clone(), metrics: &registry };
                Some(Works::build(&backends, &config, surroundings, made).await?)
            }
        };
        metrics::register(&registry, works.as_ref().map(|works| works.sandboxes.clone()), config.role.as_str())
            .map_err(step("register the node's metrics"))?;
        let mut spares: Vec<Arc<dyn Spare>> = Vec::new();
        if let Some(works) = &works {
            spares.push(works.worker.clone());
        }
        spares.push(backends.spare.clone());
        let watch = disk::Watch::new(disk.clone(), spares, &registry);
        let watch = watch.map_err(step("register the disk's metrics"))?;
        let watching = AbortOnDrop(tokio::spawn(watch.run()).abort_handle());
        let worker = works.as_ref().map(|works| works.worker.clone());
        // One that is alone has nothing to count of a fleet.
        let in_fleet = config.role != Role::Both || door.is_some();
        let fleet = in_fleet.then(|| Arc::new(fleet::Metrics::new(&registry)));
        let runs = match (config.role, worker, &fleet) {
            (Role::Worker, _, _) => None,
            (_, Some(worker), None) => Some(Runs::own(worker)),
            (_, worker, fleet) => {
                let metrics = fleet.clone().unwrap_or_else(|| Arc::new(fleet::Metrics::new(&registry)));
                let own = worker.map(|worker| (id, worker));
                Some(Runs::fleet(&backends, &config, clock.clone(), metrics, own)?)
            }
        };
        let controls = match runs {
            None => None,
            Some(runs) => {
                let (clock, metrics) = (clock.clone(), registry.clone());
                Some(Controls::build(&backends, &config, runs, id, disk, clock, packages, metrics).await?)
            }
        };
        let (mut beating, mut opened) = (None, None);
        if let Some(works) = &mut works {
            if let Some(controls) = &controls {
                works.worker.listen(controls.listeners());
            }
            // Only a worker that can be called by others is heard of by them.
            let roster = backends.shared.roster.clone().filter(|_| door.is_some());
            beating = works.start(&config, roster).await;
            if let Some((door, fleet)) = door.zip(fleet) {
                opened = Some(Door::open(works, &backends, &config, door, clock, (fleet, &registry))?);
            }
        }
        std::fs::write(config.data_dir.join("address"), address.to_string()).map_err(step("write the address file"))?;
        Ok(Self { config, backends, works, controls, door: opened, listener, address, tls, beating, watching })
    }

    /// Serves until a signal, then takes everything down.
    async fn run(self, mut signals: Signals) -> ExitCode {
        self.greet();
        service::ready(self.address);
        let _watched = AbortOnDrop(tokio::spawn(service::watch()).abort_handle());
        // What only the start needed.
        sandbox::release_code();
        sandbox::release_heap();
        let Self { config, backends, works, controls, door, listener, tls, beating, watching, .. } = self;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = controls.as_ref().zip(listener).map(|(controls, listener)| {
            tokio::spawn(controller::serve(listener, controls.controller.clone(), tls, async {
                // Either way it is time to stop.
                let _ = stopped.await;
            }))
        });
        let holding = controls.as_ref().and_then(|controls| controls.keeper.clone()).map(Keeper::start);
        let worker = works.as_ref().map(|works| works.worker.clone());
        let instance = backends.shared.instance.clone();
        let asked = async {
            match &worker {
                Some(worker) => worker.drain_asked().await,
                None => std::future::pending().await,
            }
        };
        let noticed = async {
            match instance.clone() {
                Some(instance) => notices::watch(instance, worker.clone()).await,
                None => std::future::pending().await,
            }
        };
        let name = tokio::select! {
            name = signals.next() => name,
            () = asked => "drain",
            name = noticed => name,
            () = memory::give_back() => signals.next().await,
        };
        tracing::info!(signal = name, drain_ms = config.shutdown.drain_ms, "stopping: running calls may finish");
        service::stopping();
        let ends = instance.filter(|_| name.starts_with(notices::INSTANCE));
        let most = Duration::from_millis(config.shutdown.drain_ms) + DRAIN_EXTRA;
        let keeping = ends.clone().map(|instance| tokio::spawn(notices::keep_waiting(instance, most)));
        let keeping = keeping.map(|task| AbortOnDrop(task.abort_handle()));
        let down = async {
            if let Some(controls) = &controls {
                controls.controller.audit_drain(name).await;
            }
            if let Some(holding) = holding {
                holding.let_go().await;
            }
            // Nobody listens only if the server has ended already.
            let _ = stop.send(());
            let within = Duration::from_millis(config.shutdown.drain_ms);
            let drained = async {
                match &works {
                    Some(works) => works.drain(within).await,
                    None => true,
                }
            };
            let served = async {
                match serving {
                    Some(serving) => serving.await,
                    None => Ok(()),
                }
            };
            let (finished, served) = tokio::join!(drained, served);
            if let Err(error) = served {
                tracing::error!(%error, "the server failed");
            }
            // Heard of until now, as draining; from now on not at all.
            drop(beating);
            drop(watching);
            if let Some(works) = &works {
                works.close().await;
            }
            if let Some(door) = door {
                door.close().await;
            }
            // What holds the store must be gone before it is closed.
            drop(controls);
            backends.close().await;
            let _ = std::fs::remove_file(config.data_dir.join("address"));
            drop(keeping);
            if let Some(instance) = ends
                && let Err(error) = instance.done().await
            {
                tracing::debug!(%error, "nobody was told that this instance may end");
            }
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
        let address = self.address;
        if let Some(Works { sandboxes, .. }) = &self.works {
            for warning in sandboxes.warnings() {
                tracing::warn!(weakness = %warning, "ISOLATION IS WEAKER THAN IT SHOULD BE");
            }
            let interpreters = sandboxes.interpreters();
            let found = [&interpreters.python, &interpreters.node];
            for problem in found.into_iter().filter_map(|found| found.as_ref().err()) {
                tracing::warn!(%problem, "a runtime is not available");
            }
        }
        tracing::info!(
            %address,
            role = self.config.role.as_str(),
            data_dir = %self.config.data_dir.display(),
            cgroups = self.works.as_ref().map_or("none", |works| works.sandboxes.cgroups()),
            version = env!("CARGO_PKG_VERSION"),
            "faasd is up"
        );
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let api = self.listener.as_ref().map(|_| (address, self.tls.is_none()));
        let door = self.door.as_ref().map(|door| (door.address, self.config.fleet.ca_file.is_empty()));
        for (address, _) in api.into_iter().chain(door).filter(|(at, in_clear)| *in_clear && is_reached(at)) {
            tracing::warn!(
                %address,
                "KEYS AND PAYLOADS TRAVEL IN CLEAR: others can reach this address and no certificate is set; set tls.certificate \
                 and tls.key, or let only a proxy with TLS reach it"
            );
        }
        if let Some(path) = self.controls.as_ref().and_then(|controls| controls.new_key.as_ref()) {
            tracing::info!(path = %path.display(), "made the admin key; only this file has it");
            tracing::info!(
                "try: curl -H \"x-api-key: $(cat {})\" {scheme}://{address}/functions",
                absolute(path).display()
            );
        }
    }
}

/// Connections that the kernel holds for us until they are accepted. With the usual 128, a client that opens a few hundred at once waits
/// a second for those it drops. The kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: u32 = 4096;

/// Where the API is, and where controllers of other nodes call this node's worker.
fn listeners(config: &Config) -> Result<(Option<TcpListener>, Option<TcpListener>), StartError> {
    let is_both = config.role == Role::Both;
    match config.fleet.listen.parse() {
        _ if config.role == Role::Worker => Ok((None, Some(bind(config.listen)?))),
        Ok(address) if is_both => Ok((Some(bind(config.listen)?), Some(bind(address)?))),
        _ => {
            if is_both && config.backend == Backend::Aws {
                tracing::warn!(
                    "no fleet.listen: this node takes jobs of the queue, and no calls of other nodes' controllers"
                );
            }
            Ok((Some(bind(config.listen)?), None))
        }
    }
}

/// From other machines.
fn is_reached(address: &std::net::SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn bind(address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
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
