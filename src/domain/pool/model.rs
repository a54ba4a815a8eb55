//! Random histories: a model executor starts, specialises, loses and kills sandboxes as it likes, and the pool's promises hold
//! after every event.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{settings, version_of};
use super::*;
use crate::domain::policy::evict::Eviction;
use crate::domain::policy::keep_alive::KeepAlive;

const ADAPTIVE: KeepAlive = KeepAlive::Adaptive { standard: Duration::from_secs(600), most: Duration::from_secs(1800) };

#[derive(Clone, Debug)]
enum Step {
    Checkout(usize),
    /// One of those that wait.
    Cancel(usize),
    /// One of those on their way to a report succeeds (or fails).
    Report(usize, bool),
    /// After so much processor time, in microseconds.
    Checkin(usize, bool, u64),
    Die(usize),
    Retire(usize),
    Tick(u64),
    /// So many microseconds.
    Pass(u64),
    /// So many minutes, at whose end there is a tick.
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0usize..1000;
    prop_oneof![
        8 => (0usize..6).prop_map(Step::Checkout),
        1 => any.clone().prop_map(Step::Cancel),
        8 => (any.clone(), prop::bool::weighted(0.85)).prop_map(|(at, ok)| Step::Report(at, ok)),
        6 => (any.clone(), prop::bool::weighted(0.9), 0u64..5000).prop_map(|(at, ok, cpu)| Step::Checkin(at, ok, cpu)),
        1 => any.prop_map(Step::Die),
        1 => (0usize..6).prop_map(Step::Retire),
        2 => (0u64..400).prop_map(Step::Tick),
        6 => (0u64..20_000).prop_map(Step::Pass),
        2 => (1u64..40).prop_map(Step::Pause),
    ]
}

fn limits() -> impl Strategy<Value = Settings> {
    let of_node = (1usize..9, 1usize..6, 1usize..4, 1usize..5, 1usize..20, 64u64..900, 0usize..3, 0usize..2);
    let of_owner = (1usize..7, 1usize..20, 1usize..9, 64u64..900);
    (of_node, of_owner, prop::bool::ANY).prop_map(
        |(
            (sandboxes_max, concurrency_max, starting_max, per_version_max, waiters_max, memory_budget_mb, a, b),
            (concurrency, calls, sandboxes, memory_mb),
            fixed,
        )| {
            let mut prewarmed = [0; RUNTIMES];
            (prewarmed[Runtime::Python as usize], prewarmed[Runtime::Nodejs as usize]) = (a, b);
            Settings {
                sandboxes_max,
                concurrency_max,
                starting_max,
                per_version_max,
                waiters_max,
                memory_budget_mb,
                share: Share { concurrency, calls, sandboxes, memory_mb },
                prewarmed,
                keep_alive: if fixed { KeepAlive::Fixed(Duration::from_millis(1500)) } else { ADAPTIVE },
                eviction: if fixed { Eviction::LongestIdle } else { Eviction::GreedyDual },
                ..settings()
            }
        },
    )
}

/// What the executor knows of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Starting,
    Generic,
    Specialising(VersionKey),
    Idle(VersionKey),
    Busy(VersionKey),
    Ending,
}

struct World {
    pool: Pool,
    now: Duration,
    versions: Vec<Arc<Version>>,
    sandboxes: BTreeMap<SandboxId, (Runtime, At)>,
    seen: BTreeSet<SandboxId>,
    /// Waiters not answered, in order of arrival: ids grow.
    waiting: BTreeMap<WaiterId, VersionKey>,
    next_waiter: u64,
}

impl World {
    fn new(settings: Settings) -> Self {
        let versions = (0..6)
            .map(|n| {
                let runtime = if n % 3 == 2 { Runtime::Nodejs } else { Runtime::Python };
                let mut version = version_of(n, runtime, 64 * (1 + (n as u32) % 4));
                Arc::make_mut(&mut version).owner = Owner::new(["a", "b", "c"][n as usize / 2]);
                version
            })
            .collect();
        Self {
            pool: Pool::new(settings),
            now: Duration::from_secs(1),
            versions,
            sandboxes: BTreeMap::new(),
            seen: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_waiter: 1,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Checkout(at) => {
                let (waiter, version) = (WaiterId(self.next_waiter), self.versions[at].clone());
                self.next_waiter += 1;
                self.waiting.insert(waiter, version.key());
                self.apply(Event::Checkout { waiter, version: &version, patient: at % 2 == 0 });
            }
            Step::Cancel(at) => {
                let Some(waiter) = pick(self.waiting.keys(), at) else { return };
                self.waiting.remove(&waiter);
                self.apply(Event::Cancel { waiter });
            }
            Step::Report(at, ok) => self.report(at, ok),
            Step::Checkin(at, reusable, cpu_us) => {
                let Some(sandbox) = self.pick(at, |at| matches!(at, At::Busy(_))) else { return };
                self.check_in(sandbox, reusable, cpu_us);
            }
            Step::Die(at) => {
                let Some(sandbox) = self.pick(at, |at| at != At::Starting) else { return };
                self.apply(Event::Died { sandbox });
            }
            Step::Retire(at) => self.apply(Event::Retire { version: self.versions[at].key() }),
            Step::Tick(ms) => {
                self.now += Duration::from_millis(ms);
                self.apply(Event::Tick);
            }
            Step::Pass(us) => self.now += Duration::from_micros(us),
            Step::Pause(minutes) => self.pause(minutes),
        }
    }

    fn pause(&mut self, minutes: u64) {
        self.now += Duration::from_secs(60 * minutes);
        self.apply(Event::Tick);
    }

    /// All versions come to be called every half hour, so that sandboxes are made ahead of their calls.
    fn learn(&mut self) {
        for _ in 0..12 {
            for version in 0..self.versions.len() {
                self.step(&Step::Checkout(version));
                self.finish();
            }
            // What was made ahead is used; what is idle then is let go.
            self.pause(2);
            self.finish();
            self.pause(28);
        }
    }

    fn check_in(&mut self, sandbox: SandboxId, reusable: bool, cpu_us: u64) {
        if let Some((_, at)) = self.sandboxes.get_mut(&sandbox)
            && let At::Busy(version) = *at
        {
            *at = At::Idle(version);
        }
        let cpu = Some(Duration::from_micros(cpu_us));
        self.apply(Event::Checkin { sandbox, reusable, cpu });
    }

    fn report(&mut self, at: usize, ok: bool) {
        let Some(sandbox) = self.pick(at, |at| matches!(at, At::Starting | At::Specialising(_) | At::Ending)) else {
            return;
        };
        let runtime = self.sandboxes[&sandbox].0;
        match (self.sandboxes[&sandbox].1, ok) {
            (At::Starting, true) => {
                self.sandboxes.insert(sandbox, (runtime, At::Generic));
                self.apply(Event::Started { sandbox });
            }
            (At::Starting, false) => {
                self.sandboxes.remove(&sandbox);
                self.apply(Event::StartFailed { sandbox });
            }
            (At::Specialising(version), true) => {
                self.sandboxes.insert(sandbox, (runtime, At::Idle(version)));
                self.apply(Event::Specialised { sandbox });
            }
            (At::Specialising(_), false) => self.apply(Event::SpecialiseFailed { sandbox }),
            (At::Ending, _) => {
                self.sandboxes.remove(&sandbox);
                self.apply(Event::Ended { sandbox });
            }
            _ => unreachable!("picked above"),
        }
    }

    fn pick(&self, at: usize, wanted: impl Fn(At) -> bool) -> Option<SandboxId> {
        pick(self.sandboxes.iter().filter(|(_, (_, at))| wanted(*at)).map(|(id, _)| id), at)
    }

    fn apply(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        let coming = |pool: &Pool| -> BTreeMap<VersionKey, usize> {
            pool.versions.iter().map(|(_, version)| (version.version.key(), version.coming)).collect()
        };
        let before = coming(&self.pool);
        self.pool.apply(event, self.now, &mut actions);
        for action in actions {
            self.obey(action);
        }
        for (_, version) in self.pool.versions.iter() {
            let ordered = version.coming > before.get(&version.version.key()).copied().unwrap_or(0);
            let enough = version.coming + version.idle.len() <= version.waiters.len();
            let owner_waits = !self.pool.owners[version.owner].wanting.is_empty();
            let ahead = version.waiters.is_empty() && version.sandboxes() == 1 && !owner_waits;
            assert!(!ordered || enough || ahead, "no more are ordered than callers wait");
        }
        self.check();
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Assign { waiter, sandbox, .. } => {
                let version = self.waiting.remove(&waiter).expect("answered once");
                let older = self.waiting.iter().find(|(other, key)| **other < waiter && **key == version);
                assert_eq!(older, None, "an older waiter of the version is passed over");
                self.check_turn(version);
                self.change(sandbox, |at| at == At::Idle(version), At::Busy(version));
            }
            Action::Refuse { waiter, .. } => assert!(self.waiting.remove(&waiter).is_some(), "answered once"),
            Action::Start { sandbox, runtime } => {
                assert!(self.seen.insert(sandbox), "ids are never used twice");
                self.sandboxes.insert(sandbox, (runtime, At::Starting));
            }
            Action::Specialise { sandbox, version } => {
                assert_eq!(self.sandboxes[&sandbox].0, version.runtime);
                self.change(sandbox, |at| at == At::Generic, At::Specialising(version.key()));
            }
            Action::Freeze { sandbox } => {
                assert!(matches!(self.sandboxes[&sandbox].1, At::Idle(_) | At::Generic));
            }
            Action::End { sandbox, .. } => self.change(sandbox, |at| at != At::Ending, At::Ending),
        }
    }

    /// No owner with fewer calls running is passed over.
    fn check_turn(&self, served: VersionKey) {
        let calls = |owner: &Owner| self.count(|at| matches!(at, At::Busy(key) if self.owner(key) == owner));
        let served_calls = calls(self.owner(served));
        for key in self.waiting.values().filter(|key| self.count(|at| at == At::Idle(**key)) > 0) {
            let calls = calls(self.owner(*key));
            let may = calls < self.pool.settings.share.concurrency;
            assert!(!may || calls >= served_calls, "an owner with fewer calls is passed over");
        }
    }

    fn owner(&self, key: VersionKey) -> &Owner {
        &self.versions.iter().find(|version| version.key() == key).expect("one of the world's").owner
    }

    fn change(&mut self, sandbox: SandboxId, from: impl Fn(At) -> bool, to: At) {
        let (_, at) = self.sandboxes.get_mut(&sandbox).expect("a sandbox that is there");
        assert!(from(*at), "{sandbox} can't go from {at:?} to {to:?}");
        *at = to;
    }

    fn check(&self) {
        let (pool, settings) = (&self.pool, &self.pool.settings);
        assert_eq!(pool.waiting(), self.waiting.len());
        assert_eq!(pool.by_waiter.len(), self.waiting.len());
        assert_eq!(pool.sandboxes(), self.sandboxes.len());
        assert_eq!(pool.by_id.len(), self.sandboxes.len());
        assert_eq!(pool.by_key.len(), pool.versions.len());
        assert!(pool.sandboxes() <= settings.sandboxes_max);
        assert!(pool.memory_mb() <= settings.memory_budget_mb);
        assert_eq!(pool.memory_mb(), pool.sandboxes.iter().map(|(_, s)| s.memory_mb).sum::<u64>());
        assert!(pool.waiting() <= settings.waiters_max);
        assert!(self.count(|at| at == At::Starting) <= settings.starting_max);
        let busy = self.count(|at| matches!(at, At::Busy(_)));
        assert!(busy <= settings.concurrency_max && busy == pool.active());
        assert!(busy == settings.concurrency_max || pool.servable.is_empty(), "a call may run, and could");
        self.check_oldest();
        for (slot, version) in pool.versions.iter() {
            self.check_version(slot, version);
        }
        assert_eq!(pool.by_owner.len(), pool.owners.iter().count());
        for (slot, _) in pool.owners.iter() {
            self.check_owner(slot);
        }
    }

    fn check_owner(&self, slot: Slot) {
        let (pool, share) = (&self.pool, &self.pool.settings.share);
        let owner = &pool.owners[slot];
        let versions = || pool.versions.iter().map(|(_, version)| version).filter(|version| version.owner == slot);
        assert!(versions().count() > 0, "nothing is kept of an owner without versions");
        assert_eq!(owner.active, versions().map(|version| version.busy).sum::<usize>());
        assert_eq!(owner.waiting, versions().map(|version| version.waiters.len()).sum::<usize>());
        assert_eq!(owner.sandboxes, versions().map(VersionPool::sandboxes).sum::<usize>());
        let held_mb = versions().map(|version| version.sandboxes() as u64 * version.charge_mb()).sum::<u64>();
        assert_eq!(owner.held_mb, held_mb);
        assert_eq!(owner.spare, versions().map(|version| version.spare).sum::<usize>());
        assert!(owner.active <= share.concurrency && owner.active + owner.waiting <= share.calls);
        assert!(owner.sandboxes <= share.sandboxes);
        assert!(owner.sandboxes <= 1 || owner.held_mb <= share.memory_mb);
        let servable = !owner.servable.is_empty() && owner.active < share.concurrency;
        assert_eq!(pool.servable.iter().filter(|(.., at)| *at == slot).count(), usize::from(servable));
        assert_eq!(pool.wanting.iter().filter(|(.., at)| *at == slot).count(), usize::from(!owner.wanting.is_empty()));
    }

    /// The one in need whose turn it is waits for a limit, not for nothing.
    fn check_oldest(&self) {
        let (pool, settings) = (&self.pool, &self.pool.settings);
        let Some((_, _, owner)) = pool.wanting.first() else { return };
        let Some((_, slot)) = pool.owners[*owner].wanting.first() else { return };
        let version = &pool.versions[*slot];
        let generic = !pool.runtimes[version.version.runtime as usize].ready.is_empty();
        let slots_full = !generic && pool.taken.starting == settings.starting_max;
        let spare_mb = if generic { GENERIC_MEMORY_MB } else { 0 };
        let no_memory = pool.memory_mb() + version.charge_mb() - spare_mb > settings.memory_budget_mb;
        let no_place = !generic && pool.sandboxes() == settings.sandboxes_max;
        let over_share = !pool.is_within_share(*owner, version.charge_mb(), 0, 0);
        // What is ending was evicted for one whose turn it was; its end begins the next turn.
        let turn_goes_on = pool.taken.ending > 0;
        let waits = slots_full || no_memory || no_place || over_share || turn_goes_on;
        assert!(waits, "the one whose turn it is could be helped");
    }

    fn check_version(&self, slot: Slot, version: &VersionPool) {
        let key = version.version.key();
        assert!(version.sandboxes() + version.waiters.len() > 0, "nothing is kept of a version that is over");
        assert!(version.sandboxes() <= self.pool.settings.per_version_max);
        assert_eq!(version.busy, self.count(|at| at == At::Busy(key)));
        assert_eq!(version.idle.len(), self.count(|at| at == At::Idle(key)));
        assert_eq!(version.waiters.len(), self.waiting.values().filter(|waiting| **waiting == key).count());
        assert!(version.counting_on <= version.waiters.len());
        let owner = &self.pool.owners[version.owner];
        assert_eq!(version.servable_at.is_some(), owner.servable.iter().any(|(_, at)| *at == slot));
        assert_eq!(version.wanting_at.is_some(), owner.wanting.iter().any(|(_, at)| *at == slot));
        assert_eq!(version.spare, if version.waiters.is_empty() { version.idle.len() } else { 0 });
        let watches: Vec<_> = self.pool.watched.iter().filter(|(_, at)| *at == slot).map(|(at, _)| *at).collect();
        assert_eq!(version.watched_at.as_slice(), watches);
        let lapses: Vec<_> = self.pool.lapsing.iter().filter(|(_, at)| *at == slot).map(|(at, _)| *at).collect();
        assert_eq!(version.lapses_at.as_slice(), lapses);
        assert!(version.idle.is_empty() || version.lapses_at.is_some(), "kept for ever");
        self.check_nobody_is_left(version);
    }

    /// Who waits has a sandbox that will come to them, or a limit in their way; and if it is thought too long to make another,
    /// a time to think again.
    fn check_nobody_is_left(&self, version: &VersionPool) {
        if version.waiters.is_empty() || version.wanting_at.is_some() {
            return;
        }
        assert!(version.sandboxes() > 0, "nothing comes to those that wait");
        let lacks = version.waiters.len() > version.idle.len() + version.coming;
        let limited = version.sandboxes() >= self.most();
        assert!(!lacks || limited || version.watched_at.is_some(), "never thought of again");
    }

    fn most(&self) -> usize {
        self.pool.sandboxes_per_version()
    }

    fn count(&self, wanted: impl Fn(At) -> bool) -> usize {
        self.sandboxes.values().filter(|(_, at)| wanted(*at)).count()
    }

    /// No call ends any more, but creations and endings do: whoever still waits then, waits for a limit.
    fn hang(&mut self) {
        for _ in 0..500 {
            while self.pick(0, |at| matches!(at, At::Starting | At::Specialising(_) | At::Ending)).is_some() {
                self.report(0, true);
            }
            let Some(at) = self.pool.next_watch() else { break };
            self.now = self.now.max(at);
            self.apply(Event::Tick);
        }
        for (_, version) in self.pool.versions.iter().filter(|(_, version)| !version.waiters.is_empty()) {
            let limited = version.wanting_at.is_some() || version.sandboxes() >= self.most();
            let no_calls = self.pool.active() == self.pool.settings.concurrency_max
                || self.pool.owners[version.owner].active == self.pool.settings.share.concurrency;
            assert!(limited || no_calls, "a hang keeps others waiting");
        }
    }

    /// Everything under way ends well: calls end, creations succeed, endings are confirmed.
    fn finish(&mut self) {
        for _ in 0..2000 {
            if let Some(busy) = self.pick(0, |at| matches!(at, At::Busy(_))) {
                self.check_in(busy, true, 0);
            }
            self.report(0, true);
            if self.waiting.is_empty() && self.count(|at| !matches!(at, At::Idle(_) | At::Generic)) == 0 {
                return;
            }
        }
        panic!("{} still wait, sandboxes are {:?}", self.waiting.len(), self.sandboxes);
    }
}

fn pick<'a, T: Copy + 'a>(mut from: impl Iterator<Item = &'a T> + Clone, at: usize) -> Option<T> {
    let len = from.clone().count();
    (len > 0).then(|| from.nth(at % len).copied()).flatten()
}

proptest! {
    #[test]
    fn promises_hold_whatever_happens(settings in limits(), steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new(settings);
        if world.pool.settings.keep_alive.is_adaptive() {
            world.learn();
        }
        for step in &steps {
            world.step(step);
        }
        world.hang();
        world.finish();
        world.apply(Event::Drain);
        world.finish();
        prop_assert_eq!(world.sandboxes.len(), 0, "a drained pool is empty");
        prop_assert_eq!(world.pool.taken, Taken::default());
        let ahead = world.pool.made_ahead();
        prop_assert_eq!(ahead.made, ahead.used + ahead.wasted);
        prop_assert_eq!(world.pool.by_owner.len(), 0);
        prop_assert_eq!((world.pool.habits.expected(), world.pool.habits.held()), (0, 0));
        prop_assert!(world.pool.versions.len() + world.pool.by_id.len() + world.pool.by_waiter.len() == 0);
    }
}
