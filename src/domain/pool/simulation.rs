//! How many sandboxes a load ends up with: callers, calls and creations that take their time, on simulated processors.

use std::collections::{BTreeMap, HashMap};

use super::tests::{settings, version_of};
use super::worth::PER_CPU;
use super::*;

const START: Duration = Duration::from_millis(40);
const SPECIALISE: Duration = Duration::from_millis(3);
const CPUS: u32 = 2;

/// What a call does.
#[derive(Clone, Copy)]
enum Work {
    Sleep(Duration),
    /// Shares the processors with all that compute at the time.
    Compute(Duration),
    /// Hardly computes, but has the machine carry it there and back, which keeps its processors busy at `KNEE` at once.
    Hop(Duration),
}

const KNEE: u32 = 5;
/// Between two looks at the processors.
const LOOK: Duration = Duration::from_millis(200);

enum What {
    Call,
    Started(SandboxId),
    Specialised(SandboxId),
    Done(SandboxId, Duration),
    Ended(SandboxId),
}

struct Simulation {
    pool: Pool,
    now: Duration,
    /// Called in turn.
    versions: Vec<Arc<Version>>,
    turn: usize,
    work: Work,
    /// Callers call again when they are answered.
    closed: bool,
    /// When the pool was told of the processors; before, and where it never was, it knows nothing of them.
    looked_at: Option<Duration>,
    /// Something else keeps the processors busy.
    crowded: bool,
    refused: usize,
    agenda: BTreeMap<(Duration, u64), What>,
    next: u64,
    asked_at: HashMap<WaiterId, Duration>,
    waits: Vec<Duration>,
    done: usize,
}

impl Simulation {
    fn new(work: Work, generics: usize) -> Self {
        let mut prewarmed = [0; RUNTIMES];
        prewarmed[Runtime::Python as usize] = generics;
        let settings = Settings {
            sandboxes_max: 1000,
            concurrency_max: 256,
            per_version_max: 256,
            waiters_max: 20_000,
            memory_budget_mb: 100_000,
            prewarmed,
            ..settings()
        };
        let mut simulation = Self {
            pool: Pool::new(settings),
            now: Duration::ZERO,
            versions: vec![version_of(1, Runtime::Python, 128)],
            turn: 0,
            work,
            closed: false,
            looked_at: None,
            crowded: false,
            refused: 0,
            agenda: BTreeMap::new(),
            next: 0,
            asked_at: HashMap::new(),
            waits: Vec::new(),
            done: 0,
        };
        simulation.apply(Event::Tick);
        simulation.run_for(Duration::from_millis(100));
        simulation
    }

    /// With one caller's calls in the past.
    fn warm(work: Work, generics: usize) -> Self {
        let mut simulation = Self::new(work, generics);
        for _ in 0..20 {
            simulation.call(1);
            simulation.until_done();
        }
        (simulation.done, simulation.waits) = (0, Vec::new());
        simulation
    }

    fn call(&mut self, callers: usize) {
        for _ in 0..callers {
            self.plan(Duration::ZERO, What::Call);
        }
    }

    fn plan(&mut self, after: Duration, what: What) {
        self.next += 1;
        self.agenda.insert((self.now + after, self.next), what);
    }

    fn apply(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.pool.apply(event, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Assign { waiter, sandbox, .. } => {
                    let asked_at = self.asked_at.remove(&waiter).unwrap();
                    self.waits.push(self.now - asked_at);
                    let (hold, cpu) = self.hold();
                    self.plan(hold, What::Done(sandbox, cpu));
                }
                Action::Start { sandbox, .. } => self.plan(START, What::Started(sandbox)),
                Action::Specialise { sandbox, .. } => self.plan(SPECIALISE, What::Specialised(sandbox)),
                Action::End { sandbox, .. } => self.plan(Duration::ZERO, What::Ended(sandbox)),
                Action::Freeze { .. } => {}
                Action::Refuse { waiter, reason } => {
                    assert_eq!(reason, Refusal::Overloaded);
                    self.asked_at.remove(&waiter);
                    self.refused += 1;
                }
            }
        }
    }

    fn hold(&self) -> (Duration, Duration) {
        match self.work {
            Work::Sleep(time) => (time, Duration::ZERO),
            Work::Compute(time) => (time * (self.pool.active() as u32).max(CPUS) / CPUS, time),
            Work::Hop(time) => (time * (self.pool.active() as u32).max(KNEE) / KNEE, Duration::ZERO),
        }
    }

    /// Of a thousand.
    fn idle(&self) -> u16 {
        let keep_busy = match self.work {
            Work::Sleep(_) => u32::MAX,
            Work::Compute(_) => CPUS,
            Work::Hop(_) => KNEE,
        };
        let busy = (self.pool.active() as u64 * 1000 / u64::from(keep_busy)).min(1000) as u16;
        if self.crowded { 0 } else { 1000 - busy }
    }

    fn look(&mut self) {
        if self.looked_at.is_some_and(|at| at + LOOK <= self.now) {
            self.looked_at = Some(self.now);
            self.apply(Event::Processors { idle: self.idle() });
        }
    }

    /// So many calls a second for so long, whatever becomes of them.
    fn offer(&mut self, rate: u32, time: Duration) {
        let every = Duration::from_secs(1) / rate;
        let calls = (time.as_nanos() / every.as_nanos()) as u32;
        (0..calls).for_each(|n| self.plan(every * n, What::Call));
    }

    /// One thing that is due by `until`, or a tick; `false`: nothing more.
    fn step(&mut self, until: Duration) -> bool {
        let tick = self.pool.next_watch().unwrap_or(Duration::MAX);
        let due = self.agenda.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at);
        if due.min(tick) > until {
            return false;
        }
        self.now = self.now.max(due.min(tick));
        self.look();
        if tick <= due {
            self.apply(Event::Tick);
            return true;
        }
        let Some((_, what)) = self.agenda.pop_first() else { return false };
        match what {
            What::Call => {
                self.next += 1;
                let waiter = WaiterId(self.next);
                self.asked_at.insert(waiter, self.now);
                self.turn += 1;
                let version = self.versions[self.turn % self.versions.len()].clone();
                self.apply(Event::Checkout { waiter, version: &version, patient: false });
            }
            What::Started(sandbox) => self.apply(Event::Started { sandbox }),
            What::Specialised(sandbox) => self.apply(Event::Specialised { sandbox }),
            What::Ended(sandbox) => self.apply(Event::Ended { sandbox }),
            What::Done(sandbox, cpu) => {
                self.done += 1;
                self.apply(Event::Checkin { sandbox, reusable: true, cpu: Some(cpu) });
                if self.closed {
                    self.call(1);
                }
            }
        }
        true
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Until nobody waits and nothing runs; how long that took.
    fn until_done(&mut self) -> Duration {
        let begun = self.now;
        while self.pool.waiting() + self.pool.active() > 0
            || self.agenda.values().any(|what| matches!(what, What::Call))
        {
            assert!(self.step(begun + Duration::from_secs(600)), "{} wait for ever", self.pool.waiting());
        }
        self.now - begun
    }

    /// Sandboxes of the version, calls a second, after some seconds of so many callers that never pause.
    fn closed_loop(work: Work, callers: usize, generics: usize) -> (usize, f64) {
        let mut simulation = Self::warm(work, generics);
        simulation.closed = true;
        simulation.call(callers);
        simulation.run_for(ms(4000));
        simulation.done = 0;
        simulation.run_for(ms(1000));
        (simulation.sandboxes(), simulation.done as f64)
    }

    fn sandboxes(&self) -> usize {
        self.pool.versions.iter().map(|(_, version)| version.sandboxes()).sum()
    }
}

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn calls_that_compute_get_no_more_sandboxes_than_keep_the_processors_busy() {
    for (compute, callers) in [(us(50), 16), (us(50), 64), (us(50), 2000), (us(500), 64), (ms(10), 64)] {
        for generics in [0, 2] {
            let (sandboxes, rate) = Simulation::closed_loop(Work::Compute(compute), callers, generics);
            let most = PER_CPU * CPUS as usize;
            assert!((most..=most + 2).contains(&sandboxes), "{callers} callers computing {compute:?}: {sandboxes}");
            assert!(rate >= 0.95 * f64::from(CPUS) / compute.as_secs_f64());
        }
    }
}

#[test]
fn calls_that_sleep_get_a_sandbox_each() {
    let cases =
        [(ms(5), 64, 2), (ms(20), 64, 2), (ms(20), 64, 0), (ms(1000), 64, 2), (ms(1000), 64, 0), (ms(1000), 250, 2)];
    for (sleep, callers, generics) in cases {
        let (sandboxes, rate) = Simulation::closed_loop(Work::Sleep(sleep), callers, generics);
        assert!((callers..=callers + 4).contains(&sandboxes), "{callers} callers sleeping {sleep:?}: {sandboxes}");
        assert!(rate >= 0.95 * callers as f64 / sleep.as_secs_f64(), "{callers} callers sleeping {sleep:?}: {rate}");
    }
}

#[test]
fn fifty_sleepers_of_a_second_take_hardly_more_than_that() {
    let work = Work::Sleep(ms(1000));
    for mut simulation in [Simulation::new(work, 2), Simulation::new(work, 0), Simulation::warm(work, 2)] {
        simulation.call(50);
        let took = simulation.until_done();
        assert!(took < ms(2000), "{took:?}");
    }
}

#[test]
fn a_burst_to_a_cold_function_starts_what_it_needs() {
    let mut simulation = Simulation::new(Work::Compute(us(50)), 2);
    simulation.call(200);
    let took = simulation.until_done();
    simulation.run_for(ms(1000));
    assert!(simulation.sandboxes() <= 8, "{}", simulation.sandboxes());
    assert!(took < ms(50), "{took:?}");
}

#[test]
fn a_hang_after_fast_calls_keeps_others_waiting_for_a_moment_only() {
    let mut simulation = Simulation::warm(Work::Compute(us(50)), 2);
    simulation.work = Work::Sleep(Duration::from_secs(30));
    simulation.call(1);
    simulation.run_for(us(1));
    simulation.work = Work::Compute(us(50));
    simulation.call(20);
    simulation.run_for(ms(1000));
    assert_eq!(simulation.done, 20);
    assert!(simulation.waits.iter().max() < Some(&ms(50)));
}

#[test]
fn when_all_calls_begin_to_hang_each_gets_its_sandbox() {
    let mut simulation = Simulation::warm(Work::Compute(us(50)), 2);
    simulation.closed = true;
    simulation.call(64);
    simulation.run_for(ms(200));
    simulation.work = Work::Sleep(Duration::from_secs(30));
    simulation.waits.clear();
    simulation.run_for(ms(2000));
    assert_eq!(simulation.pool.active(), 64);
}

/// Callers that never pause, after the pool was told of the processors.
fn under_way(work: Work, callers: usize) -> Simulation {
    let mut simulation = Simulation::warm(work, 2);
    simulation.looked_at = Some(simulation.now);
    simulation.closed = true;
    simulation.call(callers);
    simulation
}

#[test]
fn where_the_processors_are_busy_a_lasting_line_gets_no_more_sandboxes() {
    for callers in [64, 200, 1000] {
        let mut simulation = under_way(Work::Hop(us(300)), callers);
        simulation.run_for(ms(20_000));
        let sandboxes = simulation.sandboxes();
        assert!((4..=8).contains(&sandboxes), "{callers} callers: {sandboxes}");
        simulation.done = 0;
        simulation.run_for(ms(1000));
        assert!(simulation.done as f64 > 0.95 * f64::from(KNEE) / 0.0003, "{callers} callers: {}", simulation.done);
    }
}

#[test]
fn where_many_versions_keep_the_processors_busy_together_none_gets_more_than_its_part() {
    for versions in [8, 12, 20] {
        let mut simulation = Simulation::warm(Work::Hop(us(300)), 2);
        simulation.versions = (1..=versions).map(|id| version_of(id, Runtime::Python, 128)).collect();
        simulation.looked_at = Some(simulation.now);
        simulation.closed = true;
        simulation.call(400);
        simulation.run_for(ms(30_000));
        let active = simulation.pool.active();
        assert!(active <= versions as usize + PER_CPU * CPUS as usize, "{versions} versions: {active}");
        simulation.done = 0;
        simulation.run_for(ms(1000));
        assert!(simulation.done as f64 > 0.95 * f64::from(KNEE) / 0.0003, "{versions} versions: {}", simulation.done);
        simulation.work = Work::Sleep(ms(20));
        simulation.run_for(ms(2500));
        assert!(simulation.pool.active() >= 256, "sleepers are not held back: {}", simulation.pool.active());
    }
}

#[test]
fn of_too_many_sandboxes_only_those_run_at_once_that_keep_the_processors_busy() {
    let mut simulation = under_way(Work::Sleep(ms(20)), 64);
    simulation.run_for(ms(5000));
    assert!(simulation.sandboxes() >= 64);
    simulation.work = Work::Hop(us(300));
    simulation.run_for(ms(8000));
    assert!(simulation.pool.active() <= 6, "{}", simulation.pool.active());
    simulation.work = Work::Sleep(ms(20));
    simulation.run_for(ms(1500));
    assert_eq!(simulation.pool.active(), 64, "sleepers are not held back");
}

#[test]
fn sleepers_beside_something_that_keeps_the_processors_busy_are_not_held_back_for_long() {
    let mut simulation = under_way(Work::Sleep(ms(5)), 64);
    simulation.run_for(ms(5000));
    simulation.crowded = true;
    simulation.done = 0;
    simulation.run_for(ms(20_000));
    let lost = 1.0 - simulation.done as f64 / (20_000.0 / 5.0 * 64.0);
    assert!(lost < 0.05, "{lost}");
}

#[test]
fn what_hangs_in_a_version_that_is_held_back_keeps_nobody_waiting() {
    let mut simulation = under_way(Work::Sleep(ms(20)), 64);
    simulation.run_for(ms(5000));
    simulation.work = Work::Hop(us(300));
    simulation.run_for(ms(8000));
    simulation.work = Work::Sleep(Duration::from_secs(30));
    simulation.run_for(ms(2000));
    assert_eq!(simulation.pool.active(), 64);
}

#[test]
fn beyond_what_is_completed_newcomers_are_refused_and_who_waits_waits_for_a_bounded_time() {
    let mut simulation = under_way(Work::Hop(us(300)), 1);
    simulation.closed = false;
    simulation.offer(30_000, ms(6000));
    simulation.run_for(ms(6000));
    let capacity = f64::from(KNEE) / 0.0003;
    assert!(simulation.done as f64 > 0.85 * capacity * 6.0, "{} of {}", simulation.done, capacity * 6.0);
    assert!(simulation.refused > 30_000, "{}", simulation.refused);
    let longest = simulation.waits.iter().max().unwrap();
    // Before a line has lasted for a second, nobody is refused.
    assert!(*longest < ms(2000), "{longest:?}");
    simulation.until_done();
    simulation.refused = 0;
    simulation.offer(5_000, ms(2000));
    simulation.run_for(ms(3000));
    assert_eq!(simulation.refused, 0, "the load is over");
}
