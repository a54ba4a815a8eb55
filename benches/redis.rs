//! What a fleet asks of Redis: the time of each command over one connection, and what it costs Redis itself, which all nodes share.
//!
//! `cargo bench --bench redis`, with a `redis-server` of its own. After the times it tells, by `INFO commandstats`, the microseconds of Redis's one
//! thread that each kind of command took, and what heartbeats of 1 000 workers and the controllers that read them come to.

#![allow(clippy::print_stderr, reason = "a bench tells its figures")]
#![allow(clippy::disallowed_methods, reason = "the server is found in PATH")]

#[path = "../tests/support/redis.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod redis;
#[path = "harness/rows.rs"]
#[allow(dead_code, reason = "nothing here can't be measured")]
mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use faasd::adapters::redis::{Hears, Redis};
use faasd::config;
use faasd::domain::function::Runtime;
use faasd::domain::ids::{FunctionId, InvocationId, VersionKey, WorkerId};
use faasd::domain::rate::Rate;
use faasd::domain::time::Timestamp;
use faasd::ports::bus::News;
use faasd::ports::executor::{PoolView, WorkerState, WorkerView};
use redis::RedisServer;
use rows::Rows;
use tokio::runtime::Runtime as Tokio;
use uuid::Uuid;

const WORKERS: u128 = 1000;
const RATE: Rate = Rate { per_second: 1_000_000, burst: 100_000_000 };

/// The server's support speaks of certificates, which no bench needs.
mod certificates {
    #[derive(Clone)]
    pub struct Files {
        pub certificate: std::path::PathBuf,
        pub key: std::path::PathBuf,
        pub authority: std::path::PathBuf,
    }
}

fn main() {
    let tokio = Tokio::new().expect("a runtime");
    let server = RedisServer::start();
    let nodes = tokio.block_on(async { [connected(&server).await, connected(&server).await] });
    let mut criterion = Criterion::default().configure_from_args();
    times(&mut criterion, &tokio, &nodes);
    criterion.final_summary();
    let rows = Rows::of("redis");
    let told = heartbeats(&rows, &tokio, &server, &nodes[0]).and_then(|()| many_at_once(&rows, &tokio, &nodes[0]));
    told.expect("rows can be written");
}

async fn connected(server: &RedisServer) -> Arc<Redis> {
    let config = config::Redis { url: server.url(), ..config::Redis::default() };
    let redis =
        Redis::open(&config, Hears::All, &prometheus::Registry::new()).expect("a configuration that can be used");
    while !redis.bus.reach().is_some_and(|reach| reach.is_up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Arc::new(redis)
}

fn view(n: u128) -> WorkerView {
    let pool = PoolView { warm: 7, prewarmed: 2, busy: 3, starting: 1 };
    WorkerView {
        id: WorkerId(Uuid::from_u128(n << 64 | n)),
        address: format!("10.0.{}.{}:8080", n / 250, n % 250),
        state: WorkerState::Active,
        pools: [(Runtime::Python, pool), (Runtime::Nodejs, pool), (Runtime::Provided, pool)].into(),
        active: 9,
        waiting: 1,
        capacity: 16,
        load: 0.5625,
        mean_ms: 12.5,
        last_seen: Timestamp(0),
    }
}

fn version(n: u128) -> VersionKey {
    VersionKey { function: FunctionId(Uuid::from_u128(n)), number: 1 }
}

/// One after the other, as a caller sees it.
fn times(criterion: &mut Criterion, tokio: &Tokio, [here, there]: &[Arc<Redis>; 2]) {
    let mut group = criterion.benchmark_group("redis");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    group.bench_function("draw", |bencher| {
        bencher.iter(|| tokio.block_on(here.buckets.draw(&[7; 32], RATE, 5)).expect("tokens"));
    });
    let worker = WorkerId(Uuid::from_u128(1));
    group.bench_function("offer_and_take", |bencher| {
        bencher.iter(|| {
            tokio.block_on(async {
                here.claims.offer(version(1), worker, 1).await.expect("room");
                assert_eq!(there.claims.take(version(1)).await.expect("an answer"), Some(worker));
            });
        });
    });
    group.bench_function("beat", |bencher| {
        bencher.iter(|| tokio.block_on(here.roster.beat(&view(1))).expect("room"));
    });
    tokio.block_on(async {
        for n in 0..WORKERS {
            here.roster.beat(&view(n)).await.expect("room");
        }
    });
    group.bench_function("workers_of_1000", |bencher| {
        bencher.iter(|| tokio.block_on(here.roster.workers()).expect("a list").len());
    });
    let mut listener = there.bus.subscribe();
    group.bench_function("news_to_another_node", |bencher| {
        bencher.iter(|| {
            let news = News::Finished(InvocationId(Uuid::from_u128(9)));
            here.bus.publish(news.clone());
            tokio.block_on(async { while listener.next().await.as_ref() != Some(&news) {} });
        });
    });
    group.finish();
}

/// What Redis itself spends on 1 000 workers that beat every two seconds, and on each controller that reads them once a second.
fn heartbeats(rows: &Rows, tokio: &Tokio, server: &RedisServer, redis: &Redis) -> std::io::Result<()> {
    let cost = |name: &str, calls: u32, run: &dyn Fn()| {
        server.ask(&["CONFIG", "RESETSTAT"]);
        run();
        let us = script_us(server) / f64::from(calls);
        rows.add(&format!("Redis's thread, {name}: processor"), us, "µs").map(|()| us)
    };
    let beat = cost("a heartbeat", WORKERS as u32 * 10, &|| {
        for n in 0..WORKERS * 10 {
            tokio.block_on(redis.roster.beat(&view(n % WORKERS))).expect("room");
        }
    })?;
    let read = cost("the roster of 1 000 read", 100, &|| {
        for _ in 0..100 {
            assert_eq!(tokio.block_on(redis.roster.workers()).expect("a list").len(), WORKERS as usize);
        }
    })?;
    cost("a draw of tokens", 10_000, &|| {
        for _ in 0..10_000 {
            tokio.block_on(redis.buckets.draw(&[7; 32], RATE, 5)).expect("tokens");
        }
    })?;
    cost("a claim offered and taken", 10_000, &|| {
        for n in 0..10_000 {
            tokio.block_on(async {
                redis.claims.offer(version(n % 100), WorkerId(Uuid::from_u128(2)), 1).await.expect("room");
                redis.claims.take(version(n % 100)).await.expect("an answer");
            });
        }
    })?;
    cost("a claim asked for where there is none", 10_000, &|| {
        for n in 0..10_000 {
            assert_eq!(tokio.block_on(redis.claims.take(version(n % 100))).expect("an answer"), None);
        }
    })?;
    let percent = |us: f64| us / 1e6 * 100.0;
    rows.add("Redis's thread, 1 000 workers that beat each 2 s: busy", percent(beat * WORKERS as f64 / 2.0), "%")?;
    rows.add("Redis's thread, a controller that reads 1 000 each second: busy", percent(read), "%")
}

/// Microseconds that scripts took, with what they called.
fn script_us(server: &RedisServer) -> f64 {
    let stats = server.ask(&["INFO", "commandstats"]);
    let of = |line: &str| line.split("usec=").nth(1)?.split(',').next()?.parse::<f64>().ok();
    stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(of).sum()
}

/// Claims from many callers at once over one connection.
fn many_at_once(rows: &Rows, tokio: &Tokio, redis: &Arc<Redis>) -> std::io::Result<()> {
    const CALLERS: u128 = 64;
    const EACH: u32 = 500;
    let begun = Instant::now();
    tokio.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..CALLERS {
            let redis = redis.clone();
            callers.spawn(async move {
                for _ in 0..EACH {
                    redis.claims.offer(version(n), WorkerId(Uuid::from_u128(3)), 1).await.expect("room");
                    redis.claims.take(version(n)).await.expect("an answer").expect("the claim");
                }
            });
        }
        callers.join_all().await;
    });
    let each = begun.elapsed().as_secs_f64() / (CALLERS as f64 * f64::from(EACH));
    rows.add(&format!("claims offered and taken, {CALLERS} callers over one connection: pairs"), 1.0 / each, "/s")
}
