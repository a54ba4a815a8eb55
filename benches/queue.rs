//! The job queue on SQS over the fast one, in one process: asynchronous accepts a second, and from acceptance to receipt.
//!
//! `cargo bench --bench queue [JOBS]`. The server runs on the same processors, so the figures are of both together.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench tells its figures and ends at a failure")]
#![allow(clippy::disallowed_methods, reason = "it measures by the clock")]
#![allow(dead_code, unused_imports, reason = "of the fast SQS it needs a part, and its tests run elsewhere")]

#[path = "harness/rows.rs"]
mod rows;
#[path = "../tests/support"]
mod support {
    pub mod faults;
    pub mod sqs;
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::Region;
use aws_credential_types::Credentials;
use bytes::Bytes;
use faasd::adapters::aws::client;
use faasd::adapters::aws::sqs::metrics::Metrics;
use faasd::adapters::aws::sqs::{Letters, Queue};
use faasd::adapters::embedded::Embedded;
use faasd::adapters::system_clock::SystemClock;
use faasd::config::Config;
use faasd::domain::ids::{FunctionId, InvocationId, Owner, VersionKey};
use faasd::domain::invocation::Mode;
use faasd::domain::job::{DeadLetter, Job, Payload};
use faasd::ports::StoreError;
use faasd::ports::clock::Clock;
use faasd::ports::queue::JobQueue;
use hdrhistogram::Histogram;
use rows::Rows;
use uuid::Uuid;

const SENDERS: usize = 256;
const JOBS: usize = 50_000;
/// One after the other, for the latency of an idle queue.
const SINGLE: usize = 500;
const PLACES: usize = 56;

/// Nothing is buried here.
struct NoLetters;

#[async_trait]
impl Letters for NoLetters {
    async fn write(&self, _: DeadLetter) -> Result<(), StoreError> {
        Ok(())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn job(clock: &dyn Clock) -> Job {
    Job {
        invocation: InvocationId(Uuid::now_v7()),
        owner: Owner::new("bench"),
        version: VersionKey { function: FunctionId(Uuid::from_u128(1)), number: 1 },
        payload: Payload::Inline(Bytes::from_static(b"{\"n\":1}")),
        model_id: None,
        mode: Mode::Async,
        // Microseconds of this process rather than a time of day: nobody but the bench reads it.
        accepted_at: faasd::domain::time::Timestamp(clock.monotonic().as_micros() as u64),
    }
}

/// Receives and acknowledges `count` jobs; microseconds from acceptance to receipt.
async fn take(queue: Arc<dyn JobQueue>, clock: Arc<SystemClock>, count: usize) -> Histogram<u64> {
    let mut latencies = Histogram::new(3).unwrap();
    let mut acknowledgements = tokio::task::JoinSet::new();
    while (latencies.len() as usize) < count {
        for lease in queue.receive(PLACES, usize::MAX, Duration::from_secs(20)).await.unwrap() {
            let now = clock.monotonic().as_micros() as u64;
            latencies.record(now.saturating_sub(lease.job.accepted_at.0).max(1)).unwrap();
            let queue = queue.clone();
            acknowledgements.spawn(async move { queue.acknowledge(&lease.token).await.unwrap() });
        }
        while acknowledgements.try_join_next().is_some() {}
    }
    acknowledgements.join_all().await;
    latencies
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| Duration::new(value.tv_sec() as u64, value.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

#[tokio::main]
async fn main() {
    let jobs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(JOBS);
    let server = support::sqs::FastSqs::start().await;
    let mut config = Config::default();
    config.aws.queue_url = server.create("jobs", &[]);
    let sdk = client::loader(&config.aws)
        .endpoint_url(server.endpoint())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .load()
        .await;
    let clock = Arc::new(SystemClock::new());
    let dir = tempfile::tempdir().unwrap();
    let others = Embedded::open(dir.path(), &config, clock.clone()).unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let queue =
        Queue::open(&sdk, &config, Arc::new(NoLetters), others.artifacts.clone(), clock.clone(), metrics).unwrap();
    let queue: Arc<dyn JobQueue> = Arc::new(queue);

    let taking = tokio::spawn(take(queue.clone(), clock.clone(), SINGLE));
    let mut accepts = Histogram::<u64>::new(3).unwrap();
    for _ in 0..SINGLE {
        let began = Instant::now();
        queue.send(job(&*clock), Duration::ZERO).await.unwrap();
        accepts.record(began.elapsed().as_micros() as u64).unwrap();
    }
    let latencies = taking.await.unwrap();
    let rows = Rows::of("queue");
    for (case, times) in [("accepted", &accepts), ("accepted to received", &latencies)] {
        for (figure, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let ms = times.value_at_quantile(quantile) as f64 / 1e3;
            rows.add(&format!("SQS, fast, one job at a time, {case}: {figure}"), ms, "ms").unwrap();
        }
    }

    let (began, before) = (Instant::now(), processor_time());
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (queue, clock) = (queue.clone(), clock.clone());
        senders.spawn(async move {
            for _ in 0..jobs / SENDERS {
                queue.send(job(&*clock), Duration::ZERO).await.unwrap();
            }
        });
    }
    senders.join_all().await;
    // The server's part included.
    let tell = |case: &str, jobs: usize, took: Duration, processor: Duration| {
        rows.add(&format!("{case}: completed"), jobs as f64 / took.as_secs_f64(), "/s").unwrap();
        rows.add(&format!("{case}: processor"), processor.as_secs_f64() * 1e6 / jobs as f64, "µs").unwrap();
    };
    let sent = jobs / SENDERS * SENDERS;
    tell(&format!("SQS, fast, accepts, {SENDERS} senders"), sent, began.elapsed(), processor_time() - before);

    let (began, before) = (Instant::now(), processor_time());
    take(queue, clock, sent).await;
    let case = format!("SQS, fast, received and acknowledged, {PLACES} places");
    tell(&case, sent, began.elapsed(), processor_time() - before);
    let mut requests: Vec<_> = server.requests().into_iter().collect();
    requests.sort_unstable();
    for (action, count) in requests {
        rows.add(&format!("SQS, fast, requests of {sent} jobs: {action}"), count as f64, "requests").unwrap();
    }
}
