//! The worker on fakes, in paused time.

mod jobs;
mod learned;
mod uploads;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::fake::*;
use super::*;
use crate::domain::function::Version;
use crate::domain::invocation::Mode;
use crate::domain::outcome::{ErrorType, StartType, Status};
use crate::domain::time::Timestamp;

const ACQUIRE: Duration = Duration::from_secs(5);

struct Bench {
    worker: Arc<Worker>,
    world: Arc<World>,
    driver: Arc<FakeDriver>,
    packages: Arc<FakePackages>,
    _dir: tempfile::TempDir,
}

fn bench_with(change: impl FnOnce(&mut Config)) -> Bench {
    bench_in(World::new(), change)
}

fn bench_in(world: Arc<World>, change: impl FnOnce(&mut Config)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    config.pool.prewarmed_python = 0;
    config.pool.concurrency_max = 8;
    change(&mut config);
    let driver = Arc::new(FakeDriver::default());
    let packages = Arc::new(FakePackages(AtomicUsize::new(0)));
    let ports = WorkerPorts {
        sandboxes: driver.clone(),
        packages: packages.clone(),
        queue: world.clone(),
        invocations: world.clone(),
        registry: world.clone(),
        artifacts: world.clone(),
        bus: world.clone(),
        lessons: world.clone(),
        clock: Arc::new(FakeClock::new()),
    };
    let identity = Identity {
        id: WorkerId(Uuid::from_u128(1)),
        address: "here".to_owned(),
        machine: Machine { cpus: 2, memory_mb: 8192 },
        runtimes: vec![Runtime::Python],
    };
    let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()));
    let worker = Worker::new(ports, Arc::new(config), identity, metrics).unwrap();
    Bench { worker, world, driver, packages, _dir: dir }
}

fn bench() -> Bench {
    bench_with(|_| ())
}

impl Bench {
    fn function(&self) -> Arc<Version> {
        self.world.deploy("f", Runtime::Python, 1000)
    }

    fn invocation(&self, version: &Arc<Version>, program: &str) -> Arc<Invocation> {
        Arc::new(Invocation {
            id: InvocationId(Uuid::now_v7()),
            version: version.clone(),
            payload: Bytes::from(format!("\"{program}\"")),
            model_id: None,
            attempt: 1,
            accepted_at: Timestamp(1_700_000_000_000),
            mode: Mode::Sync,
        })
    }

    async fn run(&self, version: &Arc<Version>, program: &str) -> Result<Outcome, ExecuteError> {
        self.worker.execute(self.invocation(version, program), ACQUIRE, None).await
    }

    async fn outcome(&self, version: &Arc<Version>, program: &str) -> Outcome {
        self.run(version, program).await.unwrap()
    }

    /// Waits until the job's record is final.
    async fn finished(&self, id: InvocationId) -> crate::domain::invocation::Record {
        for _ in 0..100_000 {
            let record = self.world.record(id);
            if record.status.is_final() {
                return record;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("no final record: {:?}", self.world.record(id));
    }

    fn alive(&self) -> usize {
        self.driver.alive.load(Ordering::SeqCst)
    }
}

fn failure(outcome: &Outcome) -> (ErrorType, &str) {
    let failure = outcome.failure.as_ref().expect("a failure");
    (failure.error_type, &failure.message)
}

#[tokio::test(start_paused = true)]
async fn a_sequential_client_always_finds_the_warm_one() {
    let bench = bench();
    let f = bench.function();
    let first = bench.outcome(&f, "echo").await;
    assert_eq!((first.status, first.start_type), (Status::Success, Some(StartType::Cold)));
    assert_eq!(first.result.unwrap().get(), "\"echo\"");
    assert_eq!(first.timings.init_us, INIT.as_micros() as u64);
    assert!(first.timings.acquire_us >= START.as_micros() as u64);
    for _ in 0..1000 {
        let next = bench.outcome(&f, "raise").await;
        assert_eq!((next.status, next.start_type), (Status::Failed, Some(StartType::Warm)));
    }
    assert_eq!(bench.driver.started.load(Ordering::SeqCst), 1);
    assert_eq!(bench.packages.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn each_ending_has_its_name() {
    let bench = bench();
    let f = bench.function();
    for (program, error_type, message) in [
        ("raise", ErrorType::FunctionError, "ValueError: no"),
        ("signal 11", ErrorType::Crashed, "killed by signal 11 (SIGSEGV)"),
        ("exit 3", ErrorType::Crashed, "exited with code 3"),
        ("oom", ErrorType::OutOfMemory, "used more than its 128 MB of memory"),
        ("too large", ErrorType::OutputTooLarge, "the result is 7000000 bytes"),
        ("not json", ErrorType::FunctionError, "returned what is not JSON"),
    ] {
        let outcome = bench.outcome(&f, program).await;
        assert_eq!(outcome.status, Status::Failed, "{program}");
        let (found, words) = failure(&outcome);
        assert_eq!(found, error_type, "{program}");
        assert!(words.starts_with(message), "{program}: {words}");
        assert_eq!(outcome.stdout.text, "printed");
    }
    assert_eq!(bench.outcome(&f, "exit 3").await.exit_code, Some(3));
    assert_eq!(bench.outcome(&f, "echo").await.status, Status::Success, "the next call is fine");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_keeps_what_was_printed_and_ends_the_sandbox() {
    let bench = bench();
    let f = bench.function();
    let begun = Instant::now();
    let outcome = bench.outcome(&f, "sleep 60000").await;
    assert_eq!(outcome.status, Status::Timeout);
    assert_eq!(failure(&outcome), (ErrorType::Timeout, "ran longer than its timeout of 1s"));
    assert_eq!(outcome.stdout.text, "printed");
    assert!(begun.elapsed() < Duration::from_secs(2));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_and_a_waiting_call_can_be_cancelled() {
    let bench = bench_with(|config| config.pool.per_version_max = 1);
    let f = bench.function();
    let (running, waiting) = (bench.invocation(&f, "sleep 900"), bench.invocation(&f, "echo"));
    let both = async {
        tokio::join!(
            bench.worker.execute(running.clone(), ACQUIRE, None),
            bench.worker.execute(waiting.clone(), ACQUIRE, None),
        )
    };
    let cancel = async {
        sleep(Duration::from_millis(100)).await;
        assert!(bench.worker.cancel(waiting.id));
        assert!(bench.worker.cancel(running.id));
        assert!(!bench.worker.cancel(InvocationId(Uuid::nil())));
    };
    let ((first, second), ()) = tokio::join!(both, cancel);
    assert_eq!(first.unwrap().status, Status::Cancelled);
    assert_eq!(second.unwrap().status, Status::Cancelled);
    assert_eq!(bench.worker.calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn code_that_does_not_load_says_so() {
    let bench = bench();
    let broken = bench.world.deploy("broken", Runtime::Python, 1000);
    let outcome = bench.outcome(&broken, "echo").await;
    assert_eq!(outcome.status, Status::Failed);
    assert_eq!(failure(&outcome), (ErrorType::InitError, "SyntaxError: line 1"));
    assert_eq!(outcome.stdout.text, "loading");
    sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_platform_can_not_do_is_told_at_once() {
    let bench = bench();
    let (f, node) = (bench.function(), bench.world.deploy("n", Runtime::Nodejs, 1000));
    assert!(matches!(bench.run(&node, "echo").await, Err(ExecuteError::Unsupported(words)) if words == "install it"));
    bench.driver.broken.store(true, Ordering::SeqCst);
    assert!(matches!(bench.run(&f, "echo").await, Err(ExecuteError::Platform(_))));
    bench.driver.broken.store(false, Ordering::SeqCst);
    bench.world.artifacts.lock().unwrap().clear();
    assert!(matches!(bench.run(&f, "echo").await, Err(ExecuteError::Platform(_))));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_sandbox_is_sent_away() {
    let bench = bench_with(|config| config.pool.per_version_max = 1);
    let f = bench.world.deploy("f", Runtime::Python, 60_000);
    let (first, second) = tokio::join!(bench.run(&f, "sleep 20000"), bench.run(&f, "echo"));
    assert_eq!(first.unwrap().status, Status::Success);
    assert!(matches!(second, Err(ExecuteError::NoCapacity { .. })));
    assert_eq!(bench.worker.view().unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_are_served_by_few_sandboxes() {
    let bench = bench();
    let f = bench.function();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (worker, invocation) = (bench.worker.clone(), bench.invocation(&f, "sleep 1"));
        calls.spawn(async move { worker.execute(invocation, ACQUIRE, None).await.unwrap().status });
    }
    let all = calls.join_all().await;
    assert!(all.iter().all(|status| *status == Status::Success));
    assert!(bench.alive() <= 8, "{} sandboxes", bench.alive());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_after_fast_ones_holds_up_the_next_for_a_moment_only() {
    let bench = bench();
    bench.worker.start();
    let f = bench.world.deploy("f", Runtime::Python, 60_000);
    for _ in 0..5 {
        bench.outcome(&f, "sleep 1").await;
    }
    // Past the ticker's look at a pool where nothing waits: only news of the line can make it look earlier.
    sleep(Duration::from_millis(1010)).await;
    let (hangs, waited) = tokio::join!(bench.run(&f, "sleep 30000"), async {
        sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        bench.outcome(&f, "echo").await;
        begun.elapsed()
    });
    assert_eq!(hangs.unwrap().status, Status::Success);
    assert!(waited < Duration::from_millis(60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn idle_ones_are_frozen_and_thawed() {
    let bench = bench();
    bench.worker.start();
    let f = bench.function();
    bench.outcome(&f, "echo").await;
    sleep(Duration::from_secs(1)).await;
    let frozen = bench.worker.sandboxes.with_pool(|pool| pool.counts()[Runtime::Python as usize].frozen);
    assert_eq!(frozen, 1);
    assert_eq!(bench.outcome(&f, "echo").await.start_type, Some(StartType::Warm));
    sleep(Duration::from_secs(700)).await;
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn prewarmed_ones_are_kept_ready() {
    let bench = bench_with(|config| config.pool.prewarmed_python = 2);
    bench.worker.start();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.worker.view().unwrap().pools[&Runtime::Python].prewarmed, 2);
    let f = bench.function();
    assert_eq!(bench.outcome(&f, "echo").await.start_type, Some(StartType::Prewarmed));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.worker.view().unwrap().pools[&Runtime::Python].prewarmed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_left_unclean_serves_nobody_else() {
    let bench = bench();
    let f = bench.function();
    assert_eq!(bench.outcome(&f, "leftover").await.status, Status::Success);
    assert_eq!(bench.outcome(&f, "echo").await.start_type, Some(StartType::Cold));
    let file = bench.outcome(&f, "file").await;
    assert_eq!(file.output_files[0].name, "a.txt");
    assert_eq!(file.output_files[0].size_bytes, 3);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_spoils_its_sandbox_only() {
    let bench = bench();
    let f = bench.world.deploy("f", Runtime::Python, 60_000);
    bench.outcome(&f, "echo").await;
    let dropped = tokio::time::timeout(Duration::from_millis(10), bench.run(&f, "sleep 5000")).await;
    assert!(dropped.is_err());
    assert_eq!(bench.worker.view().unwrap().active, 0);
    assert_eq!(bench.outcome(&f, "echo").await.start_type, Some(StartType::Cold));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_finish_and_leaves_nothing() {
    let bench = bench_with(|config| config.pool.prewarmed_python = 2);
    bench.worker.start();
    let f = bench.world.deploy("f", Runtime::Python, 60_000);
    sleep(Duration::from_secs(1)).await;
    let (call, drained, late) = tokio::join!(
        bench.run(&f, "sleep 3000"),
        async {
            sleep(Duration::from_millis(500)).await;
            bench.worker.drain(Duration::from_secs(10)).await
        },
        async {
            sleep(Duration::from_millis(600)).await;
            bench.run(&f, "echo").await
        }
    );
    assert_eq!(call.unwrap().status, Status::Success);
    assert!(matches!(late, Err(ExecuteError::Draining)));
    assert!(drained);
    assert_eq!(bench.alive(), 0);
    assert_eq!(bench.worker.view().unwrap().state, WorkerState::Draining);
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_drain_goes_back_uncounted() {
    let bench = bench();
    bench.worker.start();
    let f = bench.world.deploy("f", Runtime::Python, 600_000);
    let id = bench.world.enqueue(&f, "sleep 500000");
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert!(!bench.worker.drain(Duration::from_secs(5)).await);
    assert!(begun.elapsed() < Duration::from_secs(7));
    assert_eq!(*bench.world.given_back.lock().unwrap(), [(Duration::ZERO, false)]);
    assert_eq!(bench.world.record(id).status, Status::Running);
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn sources_become_a_package_with_a_program() {
    let bench = bench();
    let package = bench.worker.build(Runtime::Cpp, Bytes::from_static(b"zip")).await.unwrap();
    assert_eq!(&package[..], b"zipmainELF");
    let rejected = bench.worker.build(Runtime::Cpp, Bytes::from_static(b"bad")).await;
    assert!(matches!(rejected, Err(BuildError::Rejected(words)) if words == "not a zip"));
    let none = bench.worker.build(Runtime::Go, Bytes::from_static(b"zip")).await;
    assert!(matches!(none, Err(BuildError::NoCompiler(words)) if words == "install it"));
    sleep(Duration::from_millis(10)).await;
    assert_eq!(bench.alive(), 0);
    assert_eq!(std::fs::read_dir(bench._dir.path().join("code.tmp")).unwrap().count(), 0, "no sources are left");
}

/// In real time and on several threads: the fake sandbox panics when it is called, specialised or frozen at the wrong moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn freezing_never_meets_a_call() {
    let bench = bench_with(|config| config.pool.freeze_after_ms = 0);
    bench.worker.start();
    let f = bench.function();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..16u64 {
        let (worker, invocation) = (bench.worker.clone(), bench.invocation(&f, "echo"));
        clients.spawn(async move {
            for n in 0..40 {
                let outcome = worker.execute(invocation.clone(), ACQUIRE, None).await.unwrap();
                assert_eq!(outcome.status, Status::Success);
                sleep(Duration::from_millis((client + n) % 14)).await;
            }
        });
    }
    clients.join_all().await;
    assert!(bench.worker.drain(ACQUIRE).await);
    assert_eq!(bench.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_sandbox_is_spoiled_goes_to_others_but_not_for_ever() {
    let bench = bench();
    let f = bench.function();
    let outcome = bench.outcome(&f, "spoiled").await;
    assert_eq!(failure(&outcome).0, ErrorType::Crashed);
    assert!(failure(&outcome).1.contains("had spoken unasked"), "{:?}", outcome.failure);
    assert_eq!(bench.driver.started.load(Ordering::SeqCst), 4, "each try on another sandbox");
    assert_eq!(bench.worker.metrics.moved.get(), 3);
    assert_eq!(bench.outcome(&f, "fine").await.status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_returns_no_json_serves_no_second_call() {
    let bench = bench();
    let f = bench.function();
    assert_eq!(failure(&bench.outcome(&f, "not").await).0, ErrorType::FunctionError);
    assert_eq!(bench.outcome(&f, "fine").await.start_type, Some(StartType::Cold));
}

#[tokio::test(start_paused = true)]
async fn the_last_calls_of_a_version_say_how_much_memory_it_needs() {
    let bench = bench();
    let f = bench.function();
    for n in 1..32 {
        assert_eq!(bench.outcome(&f, "ok").await.advice, None, "call {n}");
    }
    let advice = bench.outcome(&f, "ok").await.advice.expect("32 calls used 40 of 128 MB");
    assert_eq!((advice.recommended_memory_mb, advice.calls), (64, 32));
    assert_eq!(bench.worker.advice(f.key()), Some(advice));
    assert_eq!(bench.worker.resizes().await, [], "it was not asked to be resized by itself");
    bench.worker.retire(f.key());
    assert_eq!(bench.worker.advice(f.key()), None);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_asks_for_it_is_offered_for_resizing_when_the_advice_is_stable() {
    let bench = bench();
    let f = Arc::new(Version { auto_memory: true, ..Version::clone(&bench.function()) });
    for _ in 0..64 {
        assert_eq!(bench.worker.resizes().await, []);
        bench.outcome(&f, "ok").await;
    }
    for _ in 0..16 {
        bench.outcome(&f, "ok").await;
    }
    assert_eq!(bench.worker.resizes().await, [(f.key(), 64)]);
}
