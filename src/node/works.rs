//! The worker's role: sandboxes, the worker on them, and in a fleet of its own processes what controllers call it through.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use crate::config::{Config, Role};
use crate::domain::ids::WorkerId;
use crate::fleet::{self, Access, FleetTls, Heard, Secret};
use crate::ports::clock::Clock;
use crate::ports::roster::Roster;
use crate::sandbox::LinuxSandboxes;
use crate::worker::{Identity, Machine, Metrics, Worker, WorkerPorts};

use super::backends::Backends;
use super::packages::ZipPackages;
use super::{StartError, Surroundings, identity, step};

/// The roster may be gone: leaving it is no reason to stay.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Works {
    pub worker: Arc<Worker>,
    pub sandboxes: Arc<LinuxSandboxes>,
    id: WorkerId,
    roster: Option<Arc<dyn Roster>>,
    /// When somebody of the fleet was heard last.
    heard: Arc<Heard>,
}

/// What a worker is made with beside its ports.
pub(super) struct Made<'a> {
    pub id: WorkerId,
    /// Where others reach it.
    pub address: String,
    pub clock: Arc<dyn Clock>,
    pub packages: Arc<ZipPackages>,
    pub metrics: &'a prometheus::Registry,
}

impl Works {
    pub async fn build(
        backends: &Backends,
        config: &Arc<Config>,
        surroundings: &Surroundings,
        made: Made<'_>,
    ) -> Result<Self, StartError> {
        let instance = identity::instance(&config.data_dir);
        let sandboxes =
            LinuxSandboxes::open(config.clone(), &instance, &surroundings.executable, &surroundings.path).await?;
        sandboxes.register(made.metrics);
        let heard = Heard::new(made.clock.clone(), made.metrics);
        let sandboxes = Arc::new(sandboxes);
        let worker = Worker::new(
            WorkerPorts {
                sandboxes: sandboxes.clone(),
                packages: made.packages,
                queue: backends.queue.clone(),
                invocations: backends.invocations.clone(),
                registry: backends.registry.clone(),
                artifacts: backends.artifacts.clone(),
                bus: backends.bus.clone(),
                lessons: backends.lessons.clone(),
                clock: made.clock,
            },
            config.clone(),
            Identity { id: made.id, address: made.address, machine: Machine::detect(), runtimes: sandboxes.runtimes() },
            Arc::new(Metrics::new(made.metrics)),
        )
        .map_err(step("open the code cache"))?;
        Ok(Self { worker, sandboxes, id: made.id, roster: None, heard })
    }

    /// Begins to work. With a roster it is heard of from now on. What it gives ends this when dropped.
    pub async fn start(&mut self, config: &Config, roster: Option<Arc<dyn Roster>>) -> Option<AbortOnDrop> {
        self.worker.recall().await;
        self.worker.start();
        self.roster = roster.clone();
        let every = Duration::from_millis(config.fleet.heartbeat_ms);
        let beating =
            roster.map(|roster| tokio::spawn(fleet::beat(self.worker.clone(), roster, every, self.heard.clone())));
        beating.map(|task| AbortOnDrop(task.abort_handle()))
    }

    /// Ends what it has, in order. `true` if all calls finished by themselves.
    pub async fn drain(&self, within: Duration) -> bool {
        self.worker.drain(within).await
    }

    pub async fn close(&self) {
        if let Some(roster) = &self.roster
            && tokio::time::timeout(LEAVE_WITHIN, roster.leave(self.id)).await.is_err()
        {
            tracing::debug!("the roster did not answer: this worker will be listed as dead");
        }
        self.sandboxes.close().await;
    }
}

/// What controllers of other processes call a worker through.
pub(super) struct Door {
    serving: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    pub address: SocketAddr,
    _offering: Option<AbortOnDrop>,
    _watching: Option<AbortOnDrop>,
}

impl Door {
    pub fn open(
        works: &Works,
        backends: &Backends,
        config: &Arc<Config>,
        listener: TcpListener,
        clock: Arc<dyn Clock>,
        metrics: (Arc<fleet::Metrics>, &prometheus::Registry),
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(step("read the address for other nodes"))?;
        let server = fleet::Server::new(
            works.worker.clone(),
            works.id,
            backends.registry.clone(),
            Secret::open(&config.fleet)?,
            config.limits.clone(),
            Access {
                metrics_token: config.http.metrics_token.clone(),
                body_timeout: Duration::from_millis(config.http.body_timeout_ms),
            },
            clock,
            metrics.0,
            works.heard.clone(),
            metrics.1.clone(),
        );
        works.worker.listen(server.listeners());
        let tls = FleetTls::open(config)?;
        let (stop, stopped) = oneshot::channel();
        let limit = Duration::from_secs(config.fleet.alone_after_s);
        // One that is a controller too has itself.
        let watches = config.role == Role::Worker && !limit.is_zero();
        let watching = watches.then(|| {
            let worker = works.worker.clone();
            let cordon = move |on| {
                // One that drains takes no new work anyway.
                let _ = worker.cordon_alone(on);
            };
            tokio::spawn(fleet::watch_alone(works.heard.clone(), backends.queue.clone(), limit, cordon))
        });
        let offering = backends.shared.claims.clone().map(|claims| tokio::spawn(fleet::offer(server.clone(), claims)));
        let serving = tokio::spawn(fleet::serve(listener, server, tls, async {
            // Either way it is time to stop.
            let _ = stopped.await;
        }));
        let held = |task: Option<JoinHandle<()>>| task.map(|task| AbortOnDrop(task.abort_handle()));
        Ok(Self { serving, stop, address, _offering: held(offering), _watching: held(watching) })
    }

    /// Once the worker has drained: nobody is told anything any more.
    pub async fn close(self) {
        // Nobody listens only if the server has ended already.
        let _ = self.stop.send(());
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server for controllers failed");
        }
    }
}

/// What controllers are to call this worker by.
pub(super) fn advertised(config: &Config, listens: SocketAddr) -> Result<String, StartError> {
    if !config.fleet.advertise.is_empty() {
        return Ok(config.fleet.advertise.clone());
    }
    if !listens.ip().is_unspecified() {
        return Ok(listens.to_string());
    }
    let own = own_address(listens.is_ipv6()).ok_or(StartError::Advertise(listens))?;
    Ok(SocketAddr::new(own, listens.port()).to_string())
}

/// This machine's address on the way to others. Nothing is sent there: a datagram socket only picks its way.
fn own_address(is_ipv6: bool) -> Option<IpAddr> {
    // Addresses for documentation (RFC 5737, RFC 3849): nobody's, and so reached by the default route.
    let (any, far) = if is_ipv6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(far).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// Ends a task that outlives its use.
pub(super) struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
