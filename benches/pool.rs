//! The pool's decisions by themselves: what a warm call pays for them, and a call that had to wait.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, Owner, SandboxId};
use faasd::domain::policy::evict::Eviction;
use faasd::domain::policy::keep_alive::KeepAlive;
use faasd::domain::pool::{Action, Event, Pool, Settings, Share, WaiterId};
use faasd::domain::time::Timestamp;
use uuid::Uuid;

fn version(n: u128) -> Arc<Version> {
    Arc::new(Version {
        function_id: FunctionId(Uuid::from_u128(n)),
        number: 1,
        owner: Owner::new("bench"),
        function_name: "f".into(),
        description: String::new(),
        runtime: Runtime::Python,
        handler: None,
        memory_mb: 128,
        auto_memory: false,
        timeout_ms: 1000,
        env: Default::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    })
}

/// A pool with `versions` warm versions, one idle sandbox each.
fn warm(versions: u128, concurrency_max: usize) -> (Pool, Vec<Arc<Version>>) {
    let mut pool = Pool::new(Settings {
        sandboxes_max: 10_000,
        concurrency_max,
        cpus: 2,
        starting_max: 10_000,
        per_version_max: 256,
        waiters_max: 20_000,
        queue_wait_max: Duration::from_secs(1),
        memory_budget_mb: 1 << 30,
        share: Share::WHOLE,
        prewarmed: [0; Runtime::ALL.len()],
        freeze_after: Duration::from_millis(200),
        keep_alive: KeepAlive::Adaptive { standard: Duration::from_secs(600), most: Duration::from_secs(1800) },
        eviction: Eviction::GreedyDual,
    });
    let versions: Vec<_> = (0..versions).map(version).collect();
    let mut out = Vec::new();
    for (n, version) in versions.iter().enumerate() {
        let sandbox = SandboxId(n as u64 + 1);
        let now = Duration::ZERO;
        pool.apply(Event::Checkout { waiter: WaiterId(n as u64), version, patient: false }, now, &mut out);
        pool.apply(Event::Started { sandbox }, now, &mut out);
        pool.apply(Event::Specialised { sandbox }, now, &mut out);
        pool.apply(Event::Checkin { sandbox, reusable: true, cpu: Some(Duration::ZERO) }, now, &mut out);
    }
    (pool, versions)
}

fn assigned(out: &mut Vec<Action>) -> SandboxId {
    let Some(Action::Assign { sandbox, .. }) = out.pop() else { panic!("not assigned: {out:?}") };
    out.clear();
    sandbox
}

fn decisions(criterion: &mut Criterion) {
    for count in [1, 1000] {
        let (mut pool, versions) = warm(count, 1_000_000);
        let (mut out, mut n) = (Vec::with_capacity(8), 0usize);
        criterion.bench_function(&format!("pool/warm checkout and checkin, {count} versions"), |bencher| {
            bencher.iter(|| {
                n += 1;
                let event = Event::Checkout {
                    waiter: WaiterId(n as u64),
                    version: &versions[n % versions.len()],
                    patient: false,
                };
                pool.apply(event, Duration::from_micros(n as u64), &mut out);
                let sandbox = assigned(&mut out);
                pool.apply(
                    Event::Checkin { sandbox, reusable: true, cpu: Some(Duration::ZERO) },
                    Duration::from_micros(n as u64),
                    &mut out,
                );
                black_box(&out);
            });
        });
    }
    let (mut pool, versions) = warm(1, 1);
    let mut out = Vec::with_capacity(8);
    let mut n = 0;
    pool.apply(
        Event::Checkout { waiter: WaiterId(n), version: &versions[0], patient: false },
        Duration::ZERO,
        &mut out,
    );
    let mut sandbox = assigned(&mut out);
    criterion.bench_function("pool/wait, then served by a checkin", |bencher| {
        bencher.iter(|| {
            n += 1;
            pool.apply(
                Event::Checkout { waiter: WaiterId(n), version: &versions[0], patient: false },
                Duration::ZERO,
                &mut out,
            );
            pool.apply(Event::Checkin { sandbox, reusable: true, cpu: Some(Duration::ZERO) }, Duration::ZERO, &mut out);
            sandbox = assigned(&mut out);
        });
    });
}

criterion_group!(benches, decisions);
criterion_main!(benches);
