//! Workers without sandboxes, many in one process: each with the product's own server, heartbeat and offers, and two connections of its
//! own to Redis. Behind the server an answer comes at once, so that what is measured is the controller's way there.
//!
//! The bench starts itself to be them: a process can be killed, or stopped where it is, as a machine can.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use faasd::adapters::aws::client;
use faasd::adapters::aws::dynamodb::DynamoDb;
use faasd::adapters::embedded::Embedded;
use faasd::adapters::local_vault::LocalVault;
use faasd::adapters::redis::{Hears, Redis};
use faasd::adapters::system_clock::SystemClock;
use faasd::config::{self, Config};
use faasd::domain::function::Runtime;
use faasd::domain::ids::{InvocationId, VersionKey, WorkerId};
use faasd::domain::invocation::Invocation;
use faasd::domain::outcome::{Outcome, Output, StartType, Status, Timings, Usage};
use faasd::domain::time::Timestamp;
use faasd::fleet::{self, Access, Heard, Metrics, Secret, Server};
use faasd::ports::clock::Clock;
use faasd::ports::executor::{
    BuildError, Builder, ExecuteError, Executor, Host, Order, OrderError, PoolView, WorkerState, WorkerView,
};
use faasd::ports::registry::Registry;
use faasd::ports::sandbox::LogSink;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::support::cluster::Cluster;

const PLACES: u32 = 16;
/// Starting at once, a thousand would time out at Redis and at each other.
const START_AT_ONCE: usize = 50;
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// So many workers, told apart from those of other processes by the first one's number.
#[derive(Clone, Debug)]
pub struct Span {
    first: usize,
    count: usize,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, count) = text.split_once('+').ok_or("FIRST+COUNT")?;
        let number = |text: &str| text.parse().map_err(|error: std::num::ParseIntError| error.to_string());
        Ok(Self { first: number(first)?, count: number(count)? })
    }
}

/// A process of simulated workers; killed when dropped.
pub struct Crowd {
    child: Child,
    _input: Option<ChildStdin>,
}

impl Crowd {
    /// All of them are heard of when this returns.
    pub fn start(cluster: &Cluster, first: usize, count: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--simulate", &format!("{first}+{count}")])
            .envs(cluster.settings())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let crowd = Self { _input: child.stdin.take(), child };
        if line.trim() == "ready" { Ok(crowd) } else { Err(io::Error::other("the simulated workers did not start")) }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: serves until its input ends.
pub async fn live(span: &Span) -> io::Result<()> {
    serve(span).await.map_err(|error| io::Error::other(error.to_string()))?;
    println!("ready");
    io::stdout().flush()?;
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await?.map(drop)
}

async fn serve(span: &Span) -> Result<(), Box<dyn Error>> {
    let config = config::load::load(None, std::env::vars_os(), &[]).map_err(|problems| problems.to_string())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let registry = registry(&config, clock.clone()).await?;
    let numbers: Vec<usize> = (span.first..span.first + span.count).collect();
    for some in numbers.chunks(START_AT_ONCE) {
        let starting = some.iter().map(|number| worker(*number, &config, registry.clone(), clock.clone()));
        futures_util::future::try_join_all(starting).await?;
    }
    Ok(())
}

/// The fleet's own, as every worker reads it.
async fn registry(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Registry>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let others = Embedded::open(dir.path(), config, clock.clone())?;
    let vault = Arc::new(LocalVault::open(&config.secrets, dir.path())?);
    let sdk = client::load(&config.aws).await;
    let store = DynamoDb::open(&sdk, config, clock, vault, others.artifacts.clone(), &prometheus::Registry::new())?;
    Ok(store.registry.clone())
}

async fn worker(
    number: usize,
    config: &Config,
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
) -> Result<(), Box<dyn Error>> {
    let metrics = prometheus::Registry::new();
    let redis = Redis::open(&config.redis, Hears::AllButEnds, &metrics)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let id = WorkerId(Uuid::from_u128((number as u128 + 1) << 64 | number as u128));
    let host: Arc<dyn Host> = Arc::new(Echo { id, address: listener.local_addr()?.to_string() });
    let access = Access { metrics_token: String::new(), body_timeout: BODY_WITHIN };
    let told = Arc::new(Metrics::new(&metrics));
    let secret = Secret::open(&config.fleet)?;
    let heard = Heard::new(clock.clone(), &metrics);
    let (limits, hears) = (config.limits.clone(), heard.clone());
    let server = Server::new(host.clone(), id, registry, secret, limits, access, clock, told, hears, metrics);
    tokio::spawn(fleet::serve(listener, server.clone(), None, std::future::pending()));
    while !redis.bus.reach().is_some_and(|reach| reach.is_up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Some(view) = host.view() {
        redis.roster.beat(&view).await?;
    }
    let every = Duration::from_millis(config.fleet.heartbeat_ms);
    tokio::spawn(async move {
        // Whole: its connections live as long as this.
        let redis = redis;
        let beating = fleet::beat(host, redis.roster.clone(), every, heard);
        tokio::join!(beating, fleet::offer(server, redis.claims.clone()));
    });
    Ok(())
}

/// Answers with what it was asked, and has nothing idle that could be claimed: each call comes by placement.
struct Echo {
    id: WorkerId,
    address: String,
}

#[async_trait]
impl Executor for Echo {
    async fn execute(
        &self,
        invocation: Arc<Invocation>,
        _: Duration,
        _: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        let result = serde_json::from_slice(&invocation.payload).map_err(|e| ExecuteError::Platform(e.to_string()))?;
        Ok(Outcome {
            status: Status::Success,
            result: Some(result),
            failure: None,
            exit_code: Some(0),
            stdout: Output::default(),
            stderr: Output::default(),
            log_artifact: None,
            start_type: Some(StartType::Warm),
            timings: Timings::default(),
            usage: Usage::default(),
            output_files: Vec::new(),
            llm_token_count: None,
            advice: None,
            place: None,
        })
    }

    fn cancel(&self, _: InvocationId) -> bool {
        false
    }

    fn retire(&self, _: VersionKey) {}

    /// As long as a busy worker's.
    fn view(&self) -> Option<WorkerView> {
        let pool = PoolView { warm: 7, prewarmed: 2, busy: 3, starting: 1 };
        Some(WorkerView {
            id: self.id,
            address: self.address.clone(),
            state: WorkerState::Active,
            pools: [(Runtime::Python, pool), (Runtime::Nodejs, pool), (Runtime::Provided, pool)].into(),
            active: 3,
            waiting: 0,
            capacity: PLACES,
            load: 0.1875,
            mean_ms: 12.5,
            last_seen: Timestamp(0),
        })
    }

    async fn order(&self, _: WorkerId, _: Order) -> Result<(), OrderError> {
        Ok(())
    }
}

#[async_trait]
impl Builder for Echo {
    async fn build(&self, _: Runtime, _: Bytes) -> Result<Bytes, BuildError> {
        Err(BuildError::NoCompiler("a simulated worker builds nothing".to_owned()))
    }
}

#[async_trait]
impl Host for Echo {
    async fn execute_idle(&self, _: Arc<Invocation>, _: Option<Arc<dyn LogSink>>) -> Result<Outcome, ExecuteError> {
        Err(ExecuteError::Stale)
    }

    fn withdraw(&self, _: InvocationId) -> bool {
        false
    }

    fn idle(&self) -> Vec<(VersionKey, u32)> {
        Vec::new()
    }

    fn idle_of(&self, _: VersionKey) -> u32 {
        0
    }

    async fn idle_changed(&self) {
        std::future::pending::<()>().await;
    }
}
