//! Bus, clock, executor and packages in memory, and a controller on top of them all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, broadcast, oneshot};
use uuid::Uuid;

use super::fakes::World;
use crate::config::Config;
use crate::controller::auth::new_key;
use crate::controller::packages::{Inspected, PackageError, Packages};
use crate::controller::{Controller, ControllerPorts};
use crate::domain::function::Runtime;
use crate::domain::ids::{Digest, InvocationId, Owner, VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::key::Scope;
use crate::domain::limits::Limits;
use crate::domain::outcome::{ErrorType, Failure, Lost, Outcome, OutputFile, Status};
use crate::domain::policy::advice::Advice;
use crate::domain::time::Timestamp;
use crate::ports::bus::{Bus, News, Reach, Subscription};
use crate::ports::clock::Clock;
use crate::ports::executor::*;
use crate::ports::keys::KeyStore;
use crate::ports::sandbox::{LogSink, Stream};

pub struct Radio(broadcast::Sender<News>, pub Mutex<Option<Reach>>);

impl Bus for Radio {
    fn publish(&self, news: News) {
        let _ = self.0.send(news);
    }

    fn reach(&self) -> Option<Reach> {
        *self.1.lock().unwrap()
    }

    fn subscribe(&self) -> Box<dyn Subscription> {
        Box::new(Receiver(self.0.subscribe()))
    }
}

struct Receiver(broadcast::Receiver<News>);

#[async_trait]
impl Subscription for Receiver {
    async fn next(&mut self) -> Option<News> {
        match self.0.recv().await {
            Ok(news) => Some(news),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Follows tokio's clock, which tests may pause.
pub struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000).after(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Runs "functions": their input says what they do.
#[derive(Default)]
pub struct Runner {
    /// Calls whose input is `"wait"` end when this is notified.
    pub go_on: Notify,
    pub executed: AtomicUsize,
    pub retired: Mutex<Vec<VersionKey>>,
    pub cancelled: Mutex<Vec<InvocationId>>,
    pub advice: Mutex<Option<Arc<Advice>>>,
    pub resizes: Mutex<Vec<(VersionKey, u32)>>,
    pub orders: Mutex<Vec<Order>>,
    /// There is another worker.
    pub afar: AtomicBool,
    /// What becomes of the outputs of calls whose input is `"file"`: they are on their way until this says so.
    pub storing: Mutex<Option<oneshot::Receiver<Option<Vec<Lost>>>>>,
}

/// What a call whose input is `"file"` leaves.
pub fn output_file() -> OutputFile {
    OutputFile { name: "a.txt".into(), size_bytes: 3, sha256: Digest([7; 32]) }
}

pub fn outcome(status: Status, result: &str) -> Outcome {
    let failure = (status != Status::Success).then(|| Failure::new(ErrorType::FunctionError, "ValueError: no"));
    let result = serde_json::value::RawValue::from_string(result.to_owned()).unwrap();
    Outcome {
        result: Some(Arc::from(result)),
        failure,
        ..Outcome::without_execution(status, Failure::new(ErrorType::FunctionError, ""))
    }
}

#[async_trait]
impl Executor for Runner {
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        _acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        self.executed.fetch_add(1, Ordering::Relaxed);
        match &*invocation.payload {
            b"\"wait\"" => {
                log.as_ref().unwrap().line(Stream::Stdout, "before");
                self.go_on.notified().await;
                log.as_ref().unwrap().line(Stream::Stderr, "after");
                Ok(outcome(Status::Success, "\"waited\""))
            }
            b"\"raise\"" => Ok(outcome(Status::Failed, "null")),
            b"\"full\"" => {
                Err(ExecuteError::NoCapacity { reason: "full".into(), retry_after: Duration::from_millis(2500) })
            }
            b"\"break\"" => Err(ExecuteError::Platform("the sandbox fell over".into())),
            b"\"panic\"" => panic!("a bug"),
            b"\"file\"" => Ok(Outcome { output_files: vec![output_file()], ..outcome(Status::Success, "1") }),
            payload => Ok(outcome(Status::Success, std::str::from_utf8(payload).unwrap())),
        }
    }

    fn storing(&self, _id: InvocationId) -> Option<Storing> {
        let storing = self.storing.lock().unwrap().take()?;
        Some(Box::pin(async move { storing.await.unwrap_or(None) }))
    }

    /// As from a worker that is asked twice, and says two lines, the second of them when told.
    async fn follow(&self, _id: InvocationId, _worker: WorkerId, log: Arc<dyn LogSink>) -> bool {
        if !self.afar.load(Ordering::Relaxed) || self.executed.fetch_add(1, Ordering::Relaxed) == 0 {
            return false;
        }
        log.line(Stream::Stdout, "from afar");
        self.go_on.notified().await;
        log.line(Stream::Stderr, "last words");
        true
    }

    fn cancel(&self, id: InvocationId) -> bool {
        self.cancelled.lock().unwrap().push(id);
        true
    }

    fn retire(&self, version: VersionKey) {
        self.retired.lock().unwrap().push(version);
    }

    fn advice(&self, _version: VersionKey) -> Option<Arc<Advice>> {
        self.advice.lock().unwrap().clone()
    }

    async fn resizes(&self) -> Vec<(VersionKey, u32)> {
        self.resizes.lock().unwrap().clone()
    }

    async fn order(&self, worker: WorkerId, order: Order) -> Result<(), OrderError> {
        if worker != WorkerId(Uuid::from_u128(77)) {
            return Err(OrderError::NotFound);
        }
        self.orders.lock().unwrap().push(order);
        Ok(())
    }

    fn view(&self) -> Option<WorkerView> {
        Some(WorkerView {
            id: WorkerId(Uuid::from_u128(77)),
            address: "here".into(),
            state: WorkerState::Active,
            pools: BTreeMap::new(),
            active: 0,
            waiting: 0,
            capacity: 4,
            load: 0.0,
            mean_ms: 0.0,
            last_seen: Timestamp(0),
        })
    }
}

#[async_trait]
impl Builder for Runner {
    async fn build(&self, _runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError> {
        match package.ends_with(b"syntax error") {
            true => Err(BuildError::Rejected("main.go:1: syntax error".into())),
            false => Ok(Bytes::from_static(b"PK built")),
        }
    }
}

/// An archive is anything that begins with `PK`; `PK bad` is a broken one.
pub struct Wrapping;

impl Packages for Wrapping {
    fn inspect(
        &self,
        package: Bytes,
        runtime: Runtime,
        _handler: Option<&str>,
        _limits: &Limits,
    ) -> Result<Inspected, PackageError> {
        match &*package {
            b"PK bad" => Err(PackageError::Invalid("the archive is broken; pack it again".into())),
            b"PK bomb" => Err(PackageError::TooLarge("the archive unpacks to too much".into())),
            _ => Ok(Inspected { package, needs_build: matches!(runtime, Runtime::Go | Runtime::Cpp) }),
        }
    }

    fn wrap_source(
        &self,
        _runtime: Runtime,
        _handler: Option<&str>,
        _file_name: Option<&str>,
        source: &[u8],
    ) -> Result<Bytes, PackageError> {
        Ok([b"PK ", source].concat().into())
    }
}

/// A controller with everything it stands on, and keys for three people.
pub struct Rig {
    pub controller: Arc<Controller>,
    pub world: Arc<World>,
    pub runner: Arc<Runner>,
    pub bus: Arc<Radio>,
    pub admin: String,
    pub ann: String,
    pub bob: String,
    /// Ann's, but for looking only.
    pub reader: String,
}

impl Rig {
    pub async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let world = Arc::new(World::default());
        let runner = Arc::new(Runner::default());
        let bus = Arc::new(Radio(broadcast::channel(64).0, Mutex::default()));
        let ports = ControllerPorts {
            registry: world.clone(),
            invocations: world.clone(),
            queue: world.clone(),
            dead_letters: world.clone(),
            artifacts: world.clone(),
            keys: world.clone(),
            tokens: None,
            audit: world.clone(),
            bus: bus.clone(),
            buckets: None,
            clock: Arc::new(TestClock(tokio::time::Instant::now())),
            executor: runner.clone(),
            builder: runner.clone(),
            packages: Arc::new(Wrapping),
            roster: None,
            disk: world.clone(),
            node_id: WorkerId(Uuid::from_u128(77)),
        };
        let controller = Controller::new(ports, Arc::new(config), prometheus::Registry::new());
        let key = async |owner: &str, scopes: &[Scope]| {
            let (key, secret) = new_key("test".into(), Owner::new(owner), scopes.to_vec(), Timestamp(0));
            world.add(&key).await.unwrap();
            secret
        };
        let user = [Scope::Deploy, Scope::Invoke, Scope::Read];
        let (admin, ann) = (key("admin", &[Scope::Admin]).await, key("ann", &user).await);
        let (bob, reader) = (key("bob", &user).await, key("ann", &[Scope::Read]).await);
        Self { controller, runner, bus, admin, ann, bob, reader, world }
    }
}
