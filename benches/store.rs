//! The embedded store: what an accepted call costs, alone and among many, and what writing behind costs its caller.
//!
//! `cargo bench --bench store`. Each accept is a record and a job, both durable before it counts.

#[path = "harness/sample.rs"]
mod sample;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faasd::adapters::embedded::Embedded;
use faasd::adapters::system_clock::SystemClock;
use faasd::config::Config;
use faasd::domain::function::Runtime;
use faasd::domain::ids::{InvocationId, Owner};
use faasd::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use faasd::domain::job::{Job, Payload};
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Calls accepted between two looks at the clock.
const ROUND: u64 = 4096;

fn open(dir: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(dir, &Config::default(), Arc::new(SystemClock::new())).expect("the directory is new"))
}

fn invocation() -> Invocation {
    let at = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970");
    Invocation {
        id: InvocationId(Uuid::now_v7()),
        version: Arc::new(sample::version(Runtime::Python)),
        payload: Bytes::from(vec![b'1'; 200]),
        model_id: None,
        attempt: 1,
        accepted_at: Timestamp(at.as_millis() as u64),
        mode: Mode::Async,
    }
}

fn queued(invocation: &Invocation) -> StoredRecord {
    StoredRecord::new(Owner::new("bench"), Mode::Async, Record::queued(invocation))
}

fn finished() -> Arc<StoredRecord> {
    let mut stored = queued(&invocation());
    stored.record.status = Status::Success;
    stored.record.finished_at = Some(stored.record.created_at);
    stored.record.stdout = "hello\n".to_owned();
    let value = serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(200)));
    stored.record.result = value.ok().map(Into::into);
    Arc::new(stored)
}

async fn accept(store: &Embedded) {
    let invocation = invocation();
    store.invocations.create(queued(&invocation), None).await.expect("there is room");
    let job = Job {
        invocation: invocation.id,
        owner: Owner::new("bench"),
        version: invocation.version.key(),
        payload: Payload::Inline(invocation.payload),
        model_id: None,
        accepted_at: invocation.accepted_at,
        mode: Mode::Async,
    };
    store.queue.send(job, Duration::ZERO).await.expect("there is room");
}

/// Leases and acknowledges what a round has sent, so that the queue stays short.
async fn drain(store: &Embedded) {
    loop {
        let leases = store.queue.receive(512, usize::MAX, Duration::ZERO).await.expect("the store is open");
        if leases.is_empty() {
            return;
        }
        let mut tasks = JoinSet::new();
        for lease in leases {
            let queue = store.queue.clone();
            tasks.spawn(async move { queue.acknowledge(&lease.token).await.expect("the lease is young") });
        }
        tasks.join_all().await;
    }
}

fn accepts(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let mut group = c.benchmark_group("accept");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for senders in [1, 8, 64, 512] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        group.bench_function(format!("{senders} senders"), |bencher| {
            bencher.iter_custom(|calls| {
                let mut spent = Duration::ZERO;
                let mut left = calls;
                while left > 0 {
                    let round = left.min(ROUND);
                    left -= round;
                    spent += runtime.block_on(accept_round(&store, senders, round));
                    runtime.block_on(drain(&store));
                }
                spent
            });
        });
        runtime.block_on(store.close());
    }
}

async fn accept_round(store: &Arc<Embedded>, senders: u64, calls: u64) -> Duration {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for sender in 0..senders {
        let store = store.clone();
        let share = calls / senders + u64::from(sender < calls % senders);
        tasks.spawn(async move {
            for _ in 0..share {
                accept(&store).await;
            }
        });
    }
    tasks.join_all().await;
    began.elapsed()
}

/// The whole way of a record that is written behind, to its commit: what the writer can keep up with.
fn behind(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
    let mut group = c.benchmark_group("behind");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("written", |bencher| {
        bencher.iter_custom(|records| {
            let made: Vec<_> = (0..records).map(|_| finished()).collect();
            let began = Instant::now();
            for record in made {
                while store.invocations.finish_behind(record.clone()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            // A durable change goes behind all of them.
            runtime.block_on(store.invocations.finish(finished())).expect("there is room");
            began.elapsed()
        });
    });
    // The caller's own part, at a pace the writer keeps up with.
    group.bench_function("called", |bencher| {
        bencher.iter_custom(|records| {
            let mut spent = Duration::ZERO;
            for _ in 0..records {
                let record = finished();
                let began = Instant::now();
                while store.invocations.finish_behind(record.clone()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
    runtime.block_on(store.close());
}

criterion_group!(benches, accepts, behind);
criterion_main!(benches);
