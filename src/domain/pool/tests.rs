//! Each rule of the pool by itself. `model` drives them all together.

mod ahead;

use uuid::Uuid;

use super::*;
use crate::domain::env::Env;
use crate::domain::ids::{Digest, FunctionId, Owner};
use crate::domain::policy::evict::Eviction;
use crate::domain::policy::keep_alive::KeepAlive;
use crate::domain::time::Timestamp;

pub(super) fn version_of(n: u128, runtime: Runtime, memory_mb: u32) -> Arc<Version> {
    Arc::new(Version {
        function_id: FunctionId(Uuid::from_u128(n)),
        number: 1,
        owner: Owner::new("o"),
        function_name: "f".into(),
        description: String::new(),
        runtime,
        handler: None,
        memory_mb,
        auto_memory: false,
        timeout_ms: 1000,
        env: Env::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    })
}

pub(super) fn settings() -> Settings {
    Settings {
        sandboxes_max: 100,
        concurrency_max: 50,
        cpus: 2,
        starting_max: 4,
        per_version_max: 10,
        waiters_max: 100,
        queue_wait_max: Duration::from_secs(1),
        memory_budget_mb: 10_000,
        share: Share::WHOLE,
        prewarmed: [0; RUNTIMES],
        freeze_after: Duration::from_millis(200),
        keep_alive: KeepAlive::Fixed(Duration::from_secs(600)),
        eviction: Eviction::LongestIdle,
    }
}

/// A pool whose creations succeed when the test says so.
struct Bench {
    pool: Pool,
    now: Duration,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self { pool: Pool::new(settings), now: Duration::from_secs(1) }
    }

    fn apply(&mut self, event: Event<'_>) -> Vec<Action> {
        let mut out = Vec::new();
        self.pool.apply(event, self.now, &mut out);
        out
    }

    fn checkout(&mut self, waiter: u64, version: &Arc<Version>) -> Vec<Action> {
        self.apply(Event::Checkout { waiter: WaiterId(waiter), version, patient: false })
    }

    fn started(&mut self, n: u64) -> Vec<Action> {
        self.apply(Event::Started { sandbox: SandboxId(n) })
    }

    fn specialised(&mut self, n: u64) -> Vec<Action> {
        self.apply(Event::Specialised { sandbox: SandboxId(n) })
    }

    fn checkin(&mut self, n: u64) -> Vec<Action> {
        self.apply(Event::Checkin { sandbox: SandboxId(n), reusable: true, cpu: None })
    }

    fn ended(&mut self, n: u64) -> Vec<Action> {
        self.apply(Event::Ended { sandbox: SandboxId(n) })
    }

    /// Sandbox `n` made for waiter `n` of this version, and busy.
    fn busy(&mut self, n: u64, version: &Arc<Version>) {
        self.checkout(n, version);
        self.started(n);
        assert_eq!(self.specialised(n), [assign(n, n, StartType::Cold)]);
    }

    /// What is done when the refill is due.
    fn refilled(&mut self) -> Vec<Action> {
        self.now = self.pool.next_refill(self.now).unwrap();
        self.apply(Event::Tick)
    }

    /// A generic sandbox, ready.
    fn prewarmed(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        assert_eq!(bench.apply(Event::Tick), [start(1)]);
        assert_eq!(bench.started(1), []);
        bench
    }
}

fn assign(waiter: u64, sandbox: u64, start_type: StartType) -> Action {
    Action::Assign { waiter: WaiterId(waiter), sandbox: SandboxId(sandbox), start_type, was_frozen: false }
}

fn refuse(waiter: u64, reason: Refusal) -> Action {
    Action::Refuse { waiter: WaiterId(waiter), reason }
}

fn start(sandbox: u64) -> Action {
    Action::Start { sandbox: SandboxId(sandbox), runtime: Runtime::Python }
}

fn specialise(sandbox: u64, version: &Arc<Version>) -> Action {
    Action::Specialise { sandbox: SandboxId(sandbox), version: version.clone() }
}

fn end(sandbox: u64, reason: EndReason) -> Action {
    Action::End { sandbox: SandboxId(sandbox), reason }
}

fn python(n: u128) -> Arc<Version> {
    version_of(n, Runtime::Python, 128)
}

fn one_prewarmed() -> Settings {
    let mut prewarmed = [0; RUNTIMES];
    prewarmed[Runtime::Python as usize] = 1;
    Settings { prewarmed, ..settings() }
}

#[test]
fn a_first_call_is_cold_and_the_next_warm() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    assert_eq!(bench.checkout(1, &f), [start(1)]);
    assert_eq!(bench.started(1), [specialise(1, &f)]);
    assert_eq!(bench.specialised(1), [assign(1, 1, StartType::Cold)]);
    assert_eq!(bench.checkin(1), []);
    assert_eq!(bench.checkout(2, &f), [assign(2, 1, StartType::Warm)]);
    assert_eq!((bench.pool.active(), bench.pool.waiting(), bench.pool.memory_mb()), (1, 0, 128));
}

#[test]
fn a_generic_one_is_specialised_and_replaced() {
    let (mut bench, f) = (Bench::prewarmed(one_prewarmed()), python(1));
    assert_eq!(bench.pool.memory_mb(), GENERIC_MEMORY_MB);
    assert_eq!(bench.checkout(1, &f), [specialise(1, &f)], "the call has the processors to itself");
    assert_eq!(bench.specialised(1), [assign(1, 1, StartType::Prewarmed)]);
    assert_eq!(bench.refilled(), [start(2)]);
    assert_eq!(bench.pool.memory_mb(), 128 + GENERIC_MEMORY_MB);
}

#[test]
fn those_taken_later_put_the_refill_off_no_further() {
    let mut prewarmed = [0; RUNTIMES];
    prewarmed[Runtime::Python as usize] = 2;
    let mut bench = Bench::new(Settings { prewarmed, ..settings() });
    bench.apply(Event::Tick);
    bench.started(1);
    bench.started(2);
    bench.checkout(1, &python(1));
    let due = bench.pool.next_refill(bench.now);
    assert!(due.is_some());
    bench.now += Duration::from_millis(1);
    bench.checkout(2, &python(2));
    assert_eq!(bench.pool.next_refill(bench.now), due);
    assert_eq!(bench.refilled(), [start(3), start(4)]);
}

#[test]
fn the_newest_idle_one_serves() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    bench.busy(2, &f);
    bench.checkin(2);
    bench.checkin(1);
    assert_eq!(bench.checkout(3, &f), [assign(3, 1, StartType::Warm)]);
    assert_eq!(bench.checkout(4, &f), [assign(4, 2, StartType::Warm)]);
}

#[test]
fn a_returned_one_serves_whoever_waits_for_a_cold_one_and_that_becomes_a_spare() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    assert_eq!(bench.checkout(2, &f), [start(2)]);
    assert_eq!(bench.checkin(1), [assign(2, 1, StartType::Stolen)]);
    assert_eq!(bench.started(2), [specialise(2, &f)]);
    assert_eq!(bench.specialised(2), []);
    assert_eq!(bench.checkout(3, &f), [assign(3, 2, StartType::Warm)]);
}

#[test]
fn no_more_are_ordered_than_callers_wait() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    bench.checkout(2, &f);
    bench.checkin(1);
    assert_eq!(bench.checkout(3, &f), [], "one is coming that nobody waits for");
    assert_eq!(bench.checkin(1), [assign(3, 1, StartType::Stolen)]);
}

#[test]
fn who_waits_only_for_the_limit_is_served_warm() {
    let (mut bench, f) = (Bench::new(Settings { per_version_max: 1, ..settings() }), python(1));
    bench.busy(1, &f);
    assert_eq!(bench.checkout(2, &f), []);
    assert_eq!(bench.checkin(1), [assign(2, 1, StartType::Warm)]);
}

#[test]
fn the_oldest_waiter_of_all_versions_is_served_when_a_call_may_run() {
    let (mut bench, f, g) = (Bench::new(Settings { concurrency_max: 1, ..settings() }), python(1), python(2));
    bench.busy(1, &f);
    assert_eq!(bench.checkout(2, &g), [start(2)]);
    assert_eq!(bench.checkout(3, &f), []);
    bench.started(2);
    assert_eq!(bench.specialised(2), [], "made, but no call may run");
    assert_eq!(bench.checkin(1), [assign(2, 2, StartType::Cold)]);
    assert_eq!(bench.checkin(2), [assign(3, 1, StartType::Warm)]);
}

#[test]
fn starts_are_bounded_and_go_to_the_oldest() {
    let mut bench = Bench::new(Settings { starting_max: 1, ..settings() });
    let (f, g, h) = (python(1), python(2), python(3));
    assert_eq!(bench.checkout(1, &f), [start(1)]);
    assert_eq!(bench.checkout(2, &g), []);
    assert_eq!(bench.checkout(3, &h), []);
    assert_eq!(bench.started(1), [specialise(1, &f), start(2)]);
    assert_eq!(bench.started(2), [specialise(2, &g), start(3)]);
}

#[test]
fn the_longest_idle_of_another_version_gives_way() {
    let mut bench = Bench::new(Settings { memory_budget_mb: 256, ..settings() });
    let (f, g, h) = (python(1), python(2), python(3));
    bench.busy(1, &f);
    bench.busy(2, &g);
    bench.checkin(1);
    bench.now += Duration::from_millis(1);
    bench.checkin(2);
    assert_eq!(bench.checkout(3, &h), [end(1, EndReason::Evicted)]);
    assert_eq!(bench.apply(Event::Tick), [], "nobody else is evicted while that one ends");
    assert_eq!(bench.ended(1), [start(3)]);
    assert_eq!(bench.pool.memory_mb(), 256);
}

#[test]
fn nobody_is_evicted_in_vain() {
    let mut bench = Bench::new(Settings { memory_budget_mb: 300, ..settings() });
    let (f, g, large) = (python(1), python(2), version_of(3, Runtime::Python, 256));
    bench.busy(1, &f);
    bench.busy(2, &g);
    bench.checkin(1);
    assert_eq!(bench.checkout(3, &large), [], "what is idle would not do");
    assert_eq!(bench.checkin(2), [end(1, EndReason::Evicted), end(2, EndReason::Evicted)]);
}

#[test]
fn a_generic_one_gives_way_when_nothing_else_can() {
    let mut bench = Bench::prewarmed(Settings { sandboxes_max: 1, ..one_prewarmed() });
    let f = version_of(1, Runtime::Nodejs, 128);
    assert_eq!(bench.checkout(1, &f), [end(1, EndReason::Evicted)]);
    assert_eq!(bench.ended(1), [Action::Start { sandbox: SandboxId(2), runtime: Runtime::Nodejs }]);
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let mut bench = Bench::new(Settings { memory_budget_mb: 100, waiters_max: 1, ..settings() });
    assert_eq!(bench.checkout(1, &python(1)), [refuse(1, Refusal::TooLarge)]);
    let small = version_of(2, Runtime::Python, 64);
    bench.checkout(2, &small);
    assert_eq!(bench.checkout(3, &small), [refuse(3, Refusal::WaitersFull)]);
}

#[test]
fn a_failed_start_tells_its_waiter_at_once() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.checkout(1, &f);
    assert_eq!(bench.apply(Event::StartFailed { sandbox: SandboxId(1) }), [refuse(1, Refusal::CreationFailed)]);
    assert_eq!((bench.pool.sandboxes(), bench.pool.memory_mb(), bench.pool.versions.len()), (0, 0, 0));
}

#[test]
fn code_that_does_not_load_tells_the_oldest_that_counts_on_it() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.checkout(1, &f);
    bench.checkout(2, &f);
    bench.started(2);
    assert_eq!(
        bench.apply(Event::SpecialiseFailed { sandbox: SandboxId(2) }),
        [end(2, EndReason::SpecialiseFailed), refuse(1, Refusal::CreationFailed)]
    );
    bench.started(1);
    assert_eq!(bench.specialised(1), [assign(2, 1, StartType::Cold)]);
}

#[test]
fn a_waiter_that_left_is_not_served() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.checkout(1, &f);
    bench.checkout(2, &f);
    assert_eq!(bench.apply(Event::Cancel { waiter: WaiterId(1) }), []);
    bench.started(1);
    assert_eq!(bench.specialised(1), [assign(2, 1, StartType::Cold)]);
    bench.started(2);
    assert_eq!(bench.specialised(2), [], "a spare");
}

#[test]
fn idle_ones_freeze_then_end() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    bench.checkin(1);
    assert_eq!(bench.pool.next_tick(bench.now), Some(bench.now + Duration::from_millis(200)));
    assert_eq!(bench.apply(Event::Tick), []);
    bench.now += Duration::from_millis(200);
    assert_eq!(bench.apply(Event::Tick), [Action::Freeze { sandbox: SandboxId(1) }]);
    assert_eq!(bench.apply(Event::Tick), []);
    let Some(Action::Assign { was_frozen: true, .. }) = bench.checkout(2, &f).pop() else { panic!("not thawed") };
    bench.checkin(1);
    bench.now += Duration::from_secs(600);
    assert_eq!(bench.apply(Event::Tick), [end(1, EndReason::KeepAlive)]);
    bench.ended(1);
    assert_eq!((bench.pool.sandboxes(), bench.pool.versions.len(), bench.pool.next_tick(bench.now)), (0, 0, None));
}

#[test]
fn generic_ones_stay_and_are_not_frozen() {
    let mut bench = Bench::prewarmed(one_prewarmed());
    bench.now += Duration::from_secs(100_000);
    assert_eq!(bench.apply(Event::Tick), []);
    let counts = bench.pool.counts()[Runtime::Python as usize];
    assert_eq!((counts.prewarmed, counts.frozen), (1, 0));
}

#[test]
fn an_unfit_one_ends_and_its_waiter_gets_another() {
    let (mut bench, f) = (Bench::new(Settings { per_version_max: 1, ..settings() }), python(1));
    bench.busy(1, &f);
    bench.checkout(2, &f);
    let actions = bench.apply(Event::Checkin { sandbox: SandboxId(1), reusable: false, cpu: None });
    assert_eq!(actions, [end(1, EndReason::NotReusable), start(2)]);
}

#[test]
fn one_that_dies_idle_serves_nobody() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    bench.checkin(1);
    assert_eq!(bench.apply(Event::Died { sandbox: SandboxId(1) }), [end(1, EndReason::Died)]);
    assert_eq!(bench.checkout(2, &f), [start(2)]);
}

#[test]
fn one_that_dies_busy_ends_at_its_checkin() {
    let (mut bench, f) = (Bench::new(settings()), python(1));
    bench.busy(1, &f);
    assert_eq!(bench.apply(Event::Died { sandbox: SandboxId(1) }), []);
    assert_eq!(bench.pool.active(), 1);
    assert_eq!(bench.checkin(1), [end(1, EndReason::Died)]);
}

#[test]
fn a_retired_version_finishes_and_leaves_nothing() {
    let (mut bench, f) = (Bench::new(Settings { per_version_max: 2, ..settings() }), python(1));
    bench.busy(1, &f);
    bench.busy(2, &f);
    bench.checkin(1);
    let retire = Event::Retire { version: f.key() };
    assert_eq!(bench.apply(retire), [end(1, EndReason::Retired)]);
    bench.ended(1);
    assert_eq!(bench.checkout(3, &f), [start(3)], "a call that still names it is served");
    assert_eq!(bench.checkin(2), [assign(3, 2, StartType::Stolen)]);
    assert_eq!(bench.started(3), [end(3, EndReason::Surplus)], "nobody waits for it any more");
    assert_eq!(bench.checkin(2), [end(2, EndReason::Retired)]);
    assert_eq!(bench.pool.versions.len(), 0);
}

#[test]
fn draining_refuses_newcomers_and_serves_who_waits() {
    let mut bench = Bench::prewarmed(Settings { per_version_max: 1, ..one_prewarmed() });
    let (f, g) = (python(1), python(2));
    bench.checkout(1, &f);
    bench.specialised(1);
    bench.refilled();
    bench.checkout(2, &f);
    bench.started(2);
    assert_eq!(bench.apply(Event::Drain), [end(2, EndReason::Draining)]);
    assert_eq!(bench.checkout(3, &g), [refuse(3, Refusal::Draining)]);
    assert_eq!(bench.checkin(1), [assign(2, 1, StartType::Warm)]);
    assert_eq!(bench.checkin(1), [end(1, EndReason::Draining)]);
    bench.ended(1);
    bench.ended(2);
    assert_eq!(bench.apply(Event::Tick), [], "nothing is refilled");
    assert_eq!(bench.pool.sandboxes(), 0);
}

#[test]
fn a_runtime_that_does_not_start_is_left_alone_for_longer_and_longer() {
    let mut bench = Bench::new(one_prewarmed());
    for (n, pause_ms) in [(1, 100), (2, 200), (3, 400)] {
        assert_eq!(bench.apply(Event::Tick), [start(n)]);
        assert_eq!(bench.apply(Event::StartFailed { sandbox: SandboxId(n) }), []);
        let pause = Duration::from_millis(pause_ms);
        assert_eq!(bench.pool.next_tick(bench.now), Some(bench.now + pause));
        bench.now += pause - Duration::from_millis(1);
        assert_eq!(bench.apply(Event::Tick), []);
        bench.now += Duration::from_millis(1);
    }
}

#[test]
fn waiters_come_before_the_refill() {
    let mut bench = Bench::new(Settings { starting_max: 1, ..one_prewarmed() });
    let (f, g) = (python(1), python(2));
    assert_eq!(bench.checkout(1, &f), [start(1)]);
    assert_eq!(bench.checkout(2, &g), []);
    assert_eq!(bench.started(1), [specialise(1, &f), start(2)]);
    assert_eq!(bench.started(2), [specialise(2, &g), start(3)]);
    assert_eq!(bench.started(3), []);
    assert_eq!(bench.pool.counts()[Runtime::Python as usize].prewarmed, 1);
}
