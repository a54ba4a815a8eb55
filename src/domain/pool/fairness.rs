//! Owners beside each other: however many calls of one wait, the next one's is not kept from its sandbox.

use std::collections::{BTreeMap, HashMap};

use super::tests::{settings, version_of};
use super::*;

const START: Duration = Duration::from_millis(40);
const SPECIALISE: Duration = Duration::from_millis(3);
/// How long every call takes.
const SERVICE: Duration = Duration::from_millis(100);
/// A sandbox made from nothing, and one that ends before it.
const COLD: Duration = Duration::from_millis(50);

enum What {
    Call(Arc<Version>),
    Started(SandboxId),
    Specialised(SandboxId),
    Done(SandboxId),
    Ended(SandboxId),
}

/// A machine that does what the pool says, each thing in its time.
struct Machine {
    pool: Pool,
    now: Duration,
    agenda: BTreeMap<(Duration, u64), What>,
    next: u64,
    asked: HashMap<WaiterId, (Owner, Duration)>,
    /// The longest wait of each owner's calls that were served or refused.
    waits: HashMap<Owner, Duration>,
    served: HashMap<Owner, usize>,
    refused: HashMap<Owner, usize>,
}

impl Machine {
    fn new(settings: Settings) -> Self {
        Self {
            pool: Pool::new(settings),
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            next: 0,
            asked: HashMap::new(),
            waits: HashMap::new(),
            served: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    fn plan(&mut self, after: Duration, what: What) {
        self.next += 1;
        self.agenda.insert((self.now + after, self.next), what);
    }

    fn calls(&mut self, after: Duration, version: &Arc<Version>, count: usize) {
        for _ in 0..count {
            self.plan(after, What::Call(version.clone()));
        }
    }

    fn apply(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.pool.apply(event, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Assign { waiter, sandbox, .. } => {
                    let (owner, asked_at) = self.asked.remove(&waiter).unwrap();
                    let wait = self.waits.entry(owner.clone()).or_default();
                    *wait = (*wait).max(self.now - asked_at);
                    *self.served.entry(owner).or_default() += 1;
                    self.plan(SERVICE, What::Done(sandbox));
                }
                Action::Refuse { waiter, .. } => {
                    let (owner, _) = self.asked.remove(&waiter).unwrap();
                    *self.refused.entry(owner).or_default() += 1;
                }
                Action::Start { sandbox, .. } => self.plan(START, What::Started(sandbox)),
                Action::Specialise { sandbox, .. } => self.plan(SPECIALISE, What::Specialised(sandbox)),
                Action::End { sandbox, .. } => self.plan(Duration::from_millis(1), What::Ended(sandbox)),
                Action::Freeze { .. } => {}
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let tick = self.pool.next_watch().unwrap_or(Duration::MAX);
            let due = self.agenda.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at);
            if due.min(tick) > until {
                break;
            }
            self.now = self.now.max(due.min(tick));
            match if tick <= due { None } else { self.agenda.pop_first() } {
                None => self.apply(Event::Tick),
                Some((_, What::Call(version))) => {
                    self.next += 1;
                    let waiter = WaiterId(self.next);
                    self.asked.insert(waiter, (version.owner.clone(), self.now));
                    self.apply(Event::Checkout { waiter, version: &version, patient: false });
                }
                Some((_, What::Started(sandbox))) => self.apply(Event::Started { sandbox }),
                Some((_, What::Specialised(sandbox))) => self.apply(Event::Specialised { sandbox }),
                Some((_, What::Ended(sandbox))) => self.apply(Event::Ended { sandbox }),
                Some((_, What::Done(sandbox))) => {
                    self.apply(Event::Checkin { sandbox, reusable: true, cpu: Some(Duration::ZERO) });
                }
            }
        }
        self.now = until;
    }

    fn wait_of(&self, owner: &str) -> Duration {
        self.waits.get(&Owner::new(owner)).copied().unwrap_or(Duration::MAX)
    }

    fn served(&self, owner: &str) -> usize {
        self.served.get(&Owner::new(owner)).copied().unwrap_or(0)
    }
}

fn owned(n: u128, owner: &str, memory_mb: u32) -> Arc<Version> {
    let version = version_of(n, Runtime::Python, memory_mb);
    Arc::new(Version { owner: Owner::new(owner), ..Version::clone(&version) })
}

fn node(share: Share) -> Settings {
    Settings {
        sandboxes_max: 1000,
        concurrency_max: 16,
        per_version_max: 256,
        waiters_max: 20_000,
        memory_budget_mb: 4096,
        share,
        ..settings()
    }
}

/// Of everything, an eighth is out of one owner's reach.
fn seven_eighths() -> Share {
    Share { concurrency: 14, calls: 15_000, sandboxes: 875, memory_mb: 3584 }
}

#[test]
fn ten_thousand_waiting_calls_of_one_owner_hold_up_another_s_single_call_for_one_service_time_at_most() {
    for share in [seven_eighths(), Share::WHOLE] {
        for versions in [1, 20] {
            let mut machine = Machine::new(node(share));
            for n in 0..versions {
                machine.calls(Duration::ZERO, &owned(n, "crowd", 128), 10_000 / versions as usize);
            }
            machine.run_for(Duration::from_secs(1));
            assert!(machine.pool.waiting() > 9000 && machine.pool.active() >= 14);
            let single = owned(1000, "single", 128);
            for nth in 0..5 {
                machine.calls(Duration::from_millis(700 * nth), &single, 1);
            }
            machine.run_for(Duration::from_secs(5));
            // With no place kept free, calls that all began at once also end at once: one for the room, one for the call.
            let rounds = if share == Share::WHOLE { 2 } else { 1 };
            let (wait, most) = (machine.wait_of("single"), SERVICE * rounds + COLD);
            assert!(wait <= most, "{wait:?} beside {versions} versions, share {share:?}");
            assert_eq!(machine.served("single"), 5);
            let rate = machine.served("crowd") as f64 / 6.0;
            assert!(rate > 0.8 * 14.0 / SERVICE.as_secs_f64(), "the crowd goes on: {rate} a second");
        }
    }
}

/// The crowd's sandboxes take all the memory there is, and are all busy all the time: each time a call ends, the next could begin.
#[test]
fn sandboxes_of_an_owner_who_has_more_give_way_when_their_calls_end() {
    let settings = Settings { memory_budget_mb: 16 * 128, concurrency_max: 100, ..node(Share::WHOLE) };
    let mut machine = Machine::new(settings);
    machine.calls(Duration::ZERO, &owned(1, "crowd", 128), 10_000);
    machine.run_for(Duration::from_secs(2));
    assert_eq!((machine.pool.active(), machine.pool.memory_mb()), (16, 16 * 128));
    machine.calls(Duration::ZERO, &owned(2, "single", 512), 1);
    machine.run_for(Duration::from_secs(2));
    assert!(machine.wait_of("single") <= SERVICE + COLD, "{:?}", machine.wait_of("single"));
}

#[test]
fn long_calls_of_one_owner_leave_room_for_the_next() {
    let mut machine = Machine::new(node(seven_eighths()));
    let long = owned(1, "crowd", 128);
    for _ in 0..100 {
        machine.next += 1;
        let waiter = WaiterId(machine.next);
        machine.asked.insert(waiter, (long.owner.clone(), machine.now));
        machine.apply(Event::Checkout { waiter, version: &long, patient: false });
    }
    // Its calls never end.
    for _ in 0..1000 {
        machine.agenda.retain(|_, what| !matches!(what, What::Done(_)));
        machine.run_for(Duration::from_millis(10));
    }
    assert_eq!(machine.pool.active(), 14);
    machine.calls(Duration::ZERO, &owned(2, "single", 128), 1);
    machine.run_for(Duration::from_millis(60));
    assert!(machine.wait_of("single") <= COLD, "{:?}", machine.wait_of("single"));
}

#[test]
fn crowds_share_alike() {
    let mut machine = Machine::new(node(seven_eighths()));
    for (n, owner) in ["a", "b", "c", "d"].into_iter().enumerate() {
        // Each comes later than the one before, which has taken what it could get by then.
        machine.calls(Duration::from_millis(300 * n as u64), &owned(n as u128, owner, 128), 5000);
    }
    machine.run_for(Duration::from_secs(2));
    let before = ["a", "b", "c", "d"].map(|owner| machine.served(owner));
    machine.run_for(Duration::from_secs(10));
    let served = ["a", "b", "c", "d"].map(|owner| machine.served(owner));
    let gained: Vec<usize> = served.iter().zip(before).map(|(now, then)| now - then).collect();
    let (least, most) = (gained.iter().min().unwrap(), gained.iter().max().unwrap());
    assert!(most - least <= most / 10, "{gained:?} calls in ten seconds");
    assert!(gained.iter().sum::<usize>() >= 1400, "{gained:?}");
}

#[test]
fn a_call_beyond_an_owner_s_limit_is_refused_and_the_next_owner_s_is_not() {
    let mut machine = Machine::new(node(Share { concurrency: 3, calls: 3, ..Share::WHOLE }));
    machine.calls(Duration::ZERO, &owned(1, "many", 128), 10);
    machine.calls(Duration::ZERO, &owned(2, "one", 128), 1);
    machine.run_for(Duration::from_secs(1));
    assert_eq!((machine.served("many"), machine.refused.get(&Owner::new("many"))), (3, Some(&7)));
    assert_eq!((machine.served("one"), machine.refused.get(&Owner::new("one"))), (1, None));
    machine.calls(Duration::ZERO, &owned(1, "many", 128), 3);
    machine.run_for(Duration::from_secs(1));
    assert_eq!(machine.served("many"), 6, "served again when the others are over");
}

#[test]
fn memory_beyond_an_owner_s_share_comes_from_its_own_idle_sandboxes() {
    let mut machine = Machine::new(node(Share { memory_mb: 256, ..Share::WHOLE }));
    for n in [1, 2] {
        machine.calls(Duration::from_millis(n), &owned(n.into(), "many", 128), 1);
    }
    machine.calls(Duration::ZERO, &owned(9, "other", 128), 1);
    machine.run_for(Duration::from_secs(1));
    machine.calls(Duration::ZERO, &owned(3, "many", 128), 1);
    machine.run_for(Duration::from_secs(1));
    assert_eq!((machine.served("many"), machine.served("other")), (3, 1));
    let left: Vec<u128> = machine.pool.versions.iter().map(|(_, pool)| pool.version.function_id.0.as_u128()).collect();
    assert!(left.contains(&9) && left.contains(&3) && !left.contains(&1), "its oldest went: {left:?}");
    machine.calls(Duration::ZERO, &owned(4, "large", 512), 1);
    machine.run_for(Duration::from_secs(1));
    assert_eq!(machine.served("large"), 1, "a first sandbox is allowed whatever it takes");
}

#[test]
fn memory_that_is_lent_is_missing_until_it_is_returned() {
    let mut machine = Machine::new(Settings { memory_budget_mb: 512, ..node(Share::WHOLE) });
    machine.calls(Duration::ZERO, &owned(1, "a", 256), 1);
    machine.run_for(Duration::from_secs(1));
    machine.apply(Event::Lend { memory_mb: 512 });
    machine.run_for(Duration::from_millis(10));
    assert_eq!(machine.pool.sandboxes(), 0, "the idle one gave way");
    machine.calls(Duration::ZERO, &owned(1, "a", 256), 1);
    machine.run_for(Duration::from_secs(1));
    assert_eq!(machine.served("a"), 1);
    machine.apply(Event::Return { memory_mb: 512 });
    machine.run_for(Duration::from_secs(1));
    assert_eq!(machine.served("a"), 2);
}
