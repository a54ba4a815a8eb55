//! A fleet in one process: workers that listen, and a controller's executor that finds them by what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use crate::adapters::local::Local;
use crate::config::Config;
use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::{Invocation, Mode};
use crate::domain::outcome::Outcome;
use crate::fleet::{self, Access, Fleet, FleetPorts, FleetTls, Heard, Secret, Server, Together};
use crate::ports::clock::Clock;
use crate::ports::executor::{ExecuteError, Executor, Host};
use crate::ports::sandbox::LogSink;
use crate::worker::fake::{FakeClock, FakeDriver, FakePackages, World};
use crate::worker::{Identity, Machine, Metrics, Worker, WorkerPorts};

pub const SECRET: &str = "what all nodes of this fleet know and nobody else";
pub const ACQUIRE: Duration = Duration::from_secs(5);
/// Far longer than loopback takes.
pub const SOON: Duration = Duration::from_secs(10);

pub struct Node {
    pub id: WorkerId,
    pub worker: Arc<Worker>,
    pub address: SocketAddr,
    pub packages: Arc<FakePackages>,
    tasks: Vec<AbortHandle>,
    serving: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Node {
    /// As a process that is killed: no word to anybody.
    pub fn kill(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.serving = None;
    }

    /// As a process that was told to end.
    pub async fn end(&mut self, rig: &Rig) {
        assert!(self.worker.drain(SOON).await);
        // All but the server, which ends by itself.
        self.tasks.drain(1..).for_each(|task| task.abort());
        rig.local.roster.leave(self.id).await.unwrap();
        if let Some((serving, stop)) = self.serving.take() {
            let _ = stop.send(());
            serving.await.unwrap();
        }
    }
}

pub struct Rig {
    pub world: Arc<World>,
    pub local: Local,
    pub clock: Arc<dyn Clock>,
    pub config: Config,
}

impl Rig {
    pub fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::new());
        let mut config = Config::default();
        config.pool.prewarmed_python = 0;
        config.pool.concurrency_max = 8;
        config.fleet.secret = SECRET.into();
        Self { world: World::new(), local: Local::new(clock.clone()), clock, config }
    }

    pub fn function(&self, name: &str) -> Arc<Version> {
        self.world.deploy(name, Runtime::Python, 10_000)
    }

    /// A worker that is heard of and offers what it has.
    pub async fn node(&self) -> Node {
        self.node_with(&self.config).await
    }

    pub async fn node_with(&self, config: &Config) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(Config { data_dir: dir.path().to_owned(), ..config.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, id) = (listener.local_addr().unwrap(), WorkerId(Uuid::now_v7()));
        let packages = Arc::new(FakePackages(AtomicUsize::new(0)));
        let ports = WorkerPorts {
            sandboxes: Arc::new(FakeDriver::default()),
            packages: packages.clone(),
            queue: self.world.clone(),
            invocations: self.world.clone(),
            registry: self.world.clone(),
            artifacts: self.world.clone(),
            bus: self.world.clone(),
            lessons: self.world.clone(),
            clock: self.clock.clone(),
        };
        let identity = Identity {
            id,
            address: address.to_string(),
            machine: Machine { cpus: 2, memory_mb: 8192 },
            runtimes: vec![Runtime::Python],
        };
        let metrics = prometheus::Registry::new();
        let worker = Worker::new(ports, config.clone(), identity, Arc::new(Metrics::new(&metrics))).unwrap();
        worker.start();
        let server = self.server(worker.clone(), id, &config, metrics);
        worker.listen(server.listeners());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(fleet::serve(listener, server.clone(), FleetTls::open(&config).unwrap(), async {
            let _ = stopped.await;
        }));
        let heard = Heard::new(self.clock.clone(), &prometheus::Registry::new());
        let beating = tokio::spawn(fleet::beat(
            worker.clone(),
            self.local.roster.clone(),
            Duration::from_millis(200),
            heard.clone(),
        ));
        let offering = tokio::spawn(fleet::offer(server, self.local.claims.clone()));
        let tasks = [serving.abort_handle(), beating.abort_handle(), offering.abort_handle()].into();
        Node { id, worker, address, packages, tasks, serving: Some((serving, stop)), _dir: dir }
    }

    pub fn server(
        &self,
        host: Arc<dyn Host>,
        id: WorkerId,
        config: &Config,
        metrics: prometheus::Registry,
    ) -> Arc<Server> {
        Server::new(
            host,
            id,
            self.world.clone(),
            Secret::open(&config.fleet).unwrap(),
            config.limits.clone(),
            Access { metrics_token: "scrape".to_owned(), body_timeout: SOON },
            self.clock.clone(),
            Arc::new(fleet::Metrics::new(&metrics)),
            Heard::new(self.clock.clone(), &metrics),
            metrics,
        )
    }

    /// A controller's executor, once it knows of `workers`.
    pub async fn fleet(&self, workers: usize) -> (Arc<Fleet>, Arc<fleet::Metrics>) {
        self.fleet_of(&self.config, workers).await
    }

    pub async fn fleet_with(&self, secret: &str, workers: usize) -> (Arc<Fleet>, Arc<fleet::Metrics>) {
        let mut config = self.config.clone();
        config.fleet.secret = secret.into();
        self.fleet_of(&config, workers).await
    }

    pub async fn fleet_of(&self, config: &Config, workers: usize) -> (Arc<Fleet>, Arc<fleet::Metrics>) {
        self.fleet_beside(config, None, workers).await
    }

    /// What a node that is both runs its calls by, once it knows of so many others.
    pub async fn together(&self, own: &Node, others: usize) -> Arc<Together> {
        let (fleet, _) = self.fleet_beside(&self.config, Some(own.id), others).await;
        Together::new(own.worker.clone(), fleet)
    }

    async fn fleet_beside(
        &self,
        config: &Config,
        own: Option<WorkerId>,
        workers: usize,
    ) -> (Arc<Fleet>, Arc<fleet::Metrics>) {
        let metrics = Arc::new(fleet::Metrics::new(&prometheus::Registry::new()));
        let ports = FleetPorts {
            claims: Some(self.local.claims.clone()),
            roster: self.local.roster.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            secret: Secret::open(&config.fleet).unwrap(),
            tls: FleetTls::open(config).unwrap(),
            own,
        };
        let fleet = Fleet::new(ports, Arc::new(config.clone()));
        until("the workers are known", || fleet.others().len() == workers).await;
        (fleet, metrics)
    }
}

pub async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("not so within {SOON:?}: {what}"));
}

pub fn invocation(version: &Arc<Version>, program: &str) -> Arc<Invocation> {
    Arc::new(Invocation {
        id: InvocationId(Uuid::now_v7()),
        version: version.clone(),
        payload: Bytes::from(format!("\"{program}\"")),
        model_id: None,
        attempt: 1,
        accepted_at: crate::domain::time::Timestamp(1_700_000_000_000),
        mode: Mode::Sync,
    })
}

pub async fn run(fleet: &Fleet, version: &Arc<Version>, program: &str) -> Result<Outcome, ExecuteError> {
    run_heard(fleet, version, program, None).await
}

pub async fn run_heard(
    fleet: &Fleet,
    version: &Arc<Version>,
    program: &str,
    log: Option<Arc<dyn LogSink>>,
) -> Result<Outcome, ExecuteError> {
    let call = fleet.execute(invocation(version, program), ACQUIRE, log);
    tokio::time::timeout(4 * SOON, call).await.expect("a call ends")
}
