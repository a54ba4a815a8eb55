//! The pool: which sandbox serves whom, when one is started, frozen or ended. Pure: [`Pool::apply`] takes what happened and
//! says what to do; the worker does it and reports back. No I/O, no clock, no tasks.
//!
//! ```text
//!                Start                     Specialise                Specialised
//!   (nothing) ─────────► Starting ───────────────────► Specialising ─────────────► Idle ◄──────┐
//!                            │ nobody needs it            ▲      │                 │ │ Assign   │ Checkin
//!                            ▼                 Specialise │      │ failed          │ └──► Busy ─┘
//!                         Generic ────────────────────────┘      ▼                 ▼      │ not reusable
//!                            └──────────────────────────────► Ending ◄─────────────┴──────┘
//!                                                                │ Ended
//!                                                                ▼
//!                                                            (nothing)
//! ```
//!
//! A sandbox counts against every limit until `Ended` confirms that nothing is left of it. Starting (for a version) and
//! Specialising together are its version's *coming* ones. A creation is ordered only while fewer are coming or idle than
//! callers wait, and only if it pays (see `worth`) and the processors have something left (see `pace`); whoever is ready
//! first, created or returned, serves the version's oldest waiter. Between versions of several owners it is the turn of who has
//! least (see `owners`).
//!
//! Checkout of an idle sandbox and checkin without waiters are O(1); the rest is O(log versions that wait).

mod ahead;
mod create;
#[cfg(test)]
mod fairness;
mod habits;
mod idle;
#[cfg(test)]
mod model;
mod owners;
mod pace;
mod room;
mod serve;
#[cfg(test)]
mod simulation;
mod slab;
#[cfg(test)]
mod tests;
mod waiters;
mod words;
mod worth;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::function::{Runtime, Version};
use super::ids::{Owner, SandboxId, VersionKey};
use super::outcome::StartType;
use super::policy::keep_alive::Plan;
pub use ahead::MadeAhead;
use habits::Habits;
use owners::OwnerPool;
pub use owners::Share;
use pace::{Look, Pace};
use slab::{Chain, Link, Slab, Slot};
pub use words::{Action, Counts, EndReason, Event, GENERIC_MEMORY_MB, Refusal, Settings, WaiterId};
use worth::{History, Mean};

const RUNTIMES: usize = Runtime::ALL.len();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way; meant for a version, or to be kept generic.
    Starting {
        destined: Option<Slot>,
    },
    Generic,
    Specialising {
        version: Slot,
        start_type: StartType,
    },
    /// `fresh`: how it was come by, until it served its first call.
    Idle {
        version: Slot,
        fresh: Option<StartType>,
    },
    Busy {
        version: Slot,
    },
    Ending,
}

#[derive(Debug)]
struct Sandbox {
    id: SandboxId,
    runtime: Runtime,
    state: State,
    /// What it is counted with in the budget.
    memory_mb: u64,
    /// When it came into its state.
    since: Duration,
    frozen: bool,
    /// Ended by itself while something was still to be reported of it.
    dead: bool,
    /// Made ahead of a call that has not come yet.
    ahead: bool,
    /// The eviction's clock when it became idle.
    clock: u64,
    /// In its version's idle ones, or in its runtime's generic ones.
    group: Link,
    /// In the idle ones of all versions.
    aging: Link,
    /// In all that are idle and not frozen.
    unfrozen: Link,
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    /// Order of arrival over all versions.
    seq: u64,
    version: Slot,
    link: Link,
}

/// One version's sandboxes and waiters. Lives while it has either.
#[derive(Debug)]
struct VersionPool {
    version: Arc<Version>,
    owner: Slot,
    idle: Chain,
    waiters: Chain,
    coming: usize,
    busy: usize,
    /// So many of its oldest waiters count on a creation that was ordered for them.
    counting_on: usize,
    retired: bool,
    history: History,
    /// Idle ones as they are counted in `Taken::spare`.
    spare: usize,
    /// Its place in its owner's `servable`.
    servable_at: Option<u64>,
    /// Its place in its owner's `wanting`.
    wanting_at: Option<u64>,
    /// Its place in `Pool::watched`.
    watched_at: Option<Duration>,
    /// Its place in `Pool::lapsing`.
    lapses_at: Option<Duration>,
    /// What is remembered of its function.
    habit: Option<Slot>,
    /// How long its idle ones are kept.
    plan: Plan,
    /// How many of its calls run at once.
    pace: Pace,
    /// Calls, since it is here.
    uses: u32,
}

impl VersionPool {
    fn sandboxes(&self) -> usize {
        self.idle.len() + self.coming + self.busy
    }

    fn charge_mb(&self) -> u64 {
        u64::from(self.version.memory_mb).max(GENERIC_MEMORY_MB)
    }
}

/// One runtime's generic sandboxes.
#[derive(Debug)]
struct RuntimePool {
    ready: Chain,
    /// Starting ones that are meant to be kept generic.
    coming: usize,
    /// Starts that failed since the last that did not.
    failures: u32,
    /// No start in the background before this.
    not_before: Duration,
    /// What a start took.
    start: Mean,
}

/// What of the limits is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    memory_mb: u64,
    /// To what is not the pool's: compilations.
    lent_mb: u64,
    /// Of the memory of sandboxes, what is about to be given back.
    ending_mb: u64,
    ending: usize,
    starting: usize,
    /// Calls running.
    active: usize,
    /// Idle sandboxes of versions that nobody waits for, and what they are promised.
    spare: usize,
    spare_mb: u64,
    /// Processors that the calls running keep busy, in millionths.
    processors_ppm: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    settings: Settings,
    sandboxes: Slab<Sandbox>,
    by_id: HashMap<SandboxId, Slot>,
    versions: Slab<VersionPool>,
    by_key: HashMap<VersionKey, Slot>,
    runtimes: [RuntimePool; RUNTIMES],
    owners: Slab<OwnerPool>,
    by_owner: HashMap<Owner, Slot>,
    waiters: Slab<Waiter>,
    by_waiter: HashMap<WaiterId, Slot>,
    /// Owners with waiters, idle sandboxes for them and calls left in their share, by their calls running and their oldest waiter: only
    /// `concurrency_max` holds them up.
    servable: BTreeSet<(usize, u64, Slot)>,
    /// Owners that need another sandbox, by the memory they hold and their oldest waiter.
    wanting: BTreeSet<(u64, u64, Slot)>,
    /// Versions whose waiters no sandbox is made for, by when to look again, or earlier.
    watched: BTreeSet<(Duration, Slot)>,
    /// Versions with idle sandboxes, by when to look whether these are kept for too long, or earlier.
    lapsing: BTreeSet<(Duration, Slot)>,
    habits: Habits,
    made_ahead: MadeAhead,
    /// Where the eviction's clock stands.
    clock: u64,
    /// Idle ones of all versions, longest idle first.
    aging: Chain,
    /// Idle ones that run unfrozen, longest idle first.
    unfrozen: Chain,
    taken: Taken,
    /// What was last seen of the machine's processors.
    processors: Option<Look>,
    cordoned: bool,
    draining: bool,
    next_sandbox: u64,
    next_seq: u64,
    /// Of the event under way.
    now: Duration,
}

impl Pool {
    pub fn new(settings: Settings) -> Self {
        let runtime = || RuntimePool {
            ready: Chain::new(),
            coming: 0,
            failures: 0,
            not_before: Duration::ZERO,
            start: Mean::default(),
        };
        Self {
            habits: Habits::new(settings.sandboxes_max),
            made_ahead: MadeAhead::default(),
            lapsing: BTreeSet::new(),
            clock: 0,
            settings,
            sandboxes: Slab::new(),
            by_id: HashMap::new(),
            versions: Slab::new(),
            by_key: HashMap::new(),
            runtimes: std::array::from_fn(|_| runtime()),
            owners: Slab::new(),
            by_owner: HashMap::new(),
            waiters: Slab::new(),
            by_waiter: HashMap::new(),
            servable: BTreeSet::new(),
            wanting: BTreeSet::new(),
            watched: BTreeSet::new(),
            aging: Chain::new(),
            unfrozen: Chain::new(),
            taken: Taken::default(),
            processors: None,
            cordoned: false,
            draining: false,
            next_sandbox: 1,
            next_seq: 0,
            now: Duration::ZERO,
        }
    }

    /// Appends to `actions` what is to be done. `now` is monotonic. Events about sandboxes that are gone are ignored.
    pub fn apply(&mut self, event: Event<'_>, now: Duration, actions: &mut Vec<Action>) {
        self.now = now;
        match event {
            Event::Checkout { waiter, version, patient } => self.checkout(waiter, version, patient, actions),
            Event::Cancel { waiter } => self.cancel(waiter, now, actions),
            Event::Checkin { sandbox, reusable, cpu } => self.checkin(sandbox, reusable, cpu, actions),
            Event::Started { sandbox } => self.started(sandbox, now, actions),
            Event::StartFailed { sandbox } => self.start_failed(sandbox, now, actions),
            Event::Specialised { sandbox } => self.specialised(sandbox, now, actions),
            Event::SpecialiseFailed { sandbox } => self.specialise_failed(sandbox, now, actions),
            Event::Died { sandbox } => self.died(sandbox, now, actions),
            Event::Ended { sandbox } => self.ended(sandbox, now, actions),
            Event::Retire { version } => self.retire(version, now, actions),
            Event::Lend { memory_mb } => self.lend(memory_mb, actions),
            Event::Return { memory_mb } => self.give_back(memory_mb, now, actions),
            Event::Processors { idle } => self.look(idle),
            Event::Cordon { on } => self.cordoned = on,
            Event::Drain => self.drain(now, actions),
            Event::Tick => self.tick(now, actions),
        }
    }

    /// Calls running.
    pub fn active(&self) -> usize {
        self.taken.active
    }

    /// Callers waiting for a sandbox.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Nothing runs, waits, comes or goes: whatever [`Pool::next_tick`] says can be late without a caller noticing.
    pub fn is_quiet(&self) -> bool {
        let Taken { active, starting, ending, .. } = self.taken;
        active + starting + ending + self.waiters.len() == 0
    }

    /// Sandboxes alive in any way.
    pub fn sandboxes(&self) -> usize {
        self.sandboxes.len()
    }

    /// Idle sandboxes of a version.
    pub fn idle_of(&self, version: VersionKey) -> usize {
        self.by_key.get(&version).map_or(0, |slot| self.versions[*slot].idle.len())
    }

    /// Versions with idle sandboxes that new calls may have, and how many. O(versions).
    pub fn idle(&self) -> impl Iterator<Item = (VersionKey, usize)> {
        let refuses = self.cordoned || self.draining;
        let versions = self.versions.iter().filter(move |_| !refuses).map(|(_, version)| version);
        versions
            .filter(|version| !version.retired && version.waiters.is_empty() && !version.idle.is_empty())
            .map(|version| (version.version.key(), version.idle.len()))
    }

    /// What became of those made ahead of a predicted call.
    pub fn made_ahead(&self) -> MadeAhead {
        self.made_ahead
    }

    /// An id for a sandbox that is not the pool's: one that compiles, say.
    pub fn reserve_id(&mut self) -> SandboxId {
        let id = SandboxId(self.next_sandbox);
        self.next_sandbox += 1;
        id
    }

    /// Memory promised to them.
    pub fn memory_mb(&self) -> u64 {
        self.taken.memory_mb
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// By `Runtime as usize`. O(sandboxes): for views, not for decisions.
    pub fn counts(&self) -> [Counts; RUNTIMES] {
        let mut all = [Counts::default(); RUNTIMES];
        for (_, sandbox) in self.sandboxes.iter() {
            let counts = &mut all[sandbox.runtime as usize];
            counts.frozen += u32::from(sandbox.frozen);
            *match sandbox.state {
                State::Starting { .. } | State::Specialising { .. } => &mut counts.starting,
                State::Generic => &mut counts.prewarmed,
                State::Idle { .. } => &mut counts.warm,
                State::Busy { .. } => &mut counts.busy,
                State::Ending => &mut counts.ending,
            } += 1;
        }
        all
    }

    fn checkin(&mut self, id: SandboxId, reusable: bool, cpu: Option<Duration>, out: &mut Vec<Action>) {
        let now = self.now;
        let Some(&slot) = self.by_id.get(&id) else { return };
        let State::Busy { version } = self.sandboxes[slot].state else { return };
        self.versions[version].busy -= 1;
        self.taken.active -= 1;
        self.count_call(version, false);
        self.note_call(slot, version, cpu);
        self.keep_pace(version);
        self.note_rests(version);
        match (self.sandboxes[slot].dead, reusable) {
            (true, _) => self.end(slot, EndReason::Died, out),
            (false, false) => self.end(slot, EndReason::NotReusable, out),
            (false, true) => {
                self.make_idle(slot, version, None, now);
                self.give_way(version, out);
            }
        }
        self.settle(version, now, out);
    }

    fn died(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        match self.sandboxes[slot].state {
            State::Idle { version, .. } => {
                self.take_idle(slot, version);
                self.end(slot, EndReason::Died, out);
                self.settle(version, now, out);
            }
            State::Generic => {
                self.take_generic(slot);
                self.end(slot, EndReason::Died, out);
                self.back_off(self.sandboxes[slot].runtime as usize, now);
                self.grow(now, out);
            }
            // What is under way reports its own end; that comes first and knows more.
            State::Starting { .. } | State::Specialising { .. } | State::Busy { .. } => {
                self.sandboxes[slot].dead = true
            }
            State::Ending => {}
        }
    }

    fn ended(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        if self.sandboxes[slot].state != State::Ending {
            return;
        }
        self.taken.ending -= 1;
        self.taken.ending_mb -= self.sandboxes[slot].memory_mb;
        self.forget(slot);
        self.grow(now, out);
    }

    /// The sandbox's places in the limits become those of one that is ending. It must be in no chain any more.
    fn end(&mut self, slot: Slot, reason: EndReason, out: &mut Vec<Action>) {
        self.is_ahead_no_more(slot, false);
        let sandbox = &mut self.sandboxes[slot];
        let before = std::mem::replace(&mut sandbox.state, State::Ending);
        self.taken.ending += 1;
        self.taken.ending_mb += sandbox.memory_mb;
        out.push(Action::End { sandbox: sandbox.id, reason });
        match before {
            State::Starting { destined: Some(version) }
            | State::Specialising { version, .. }
            | State::Idle { version, .. }
            | State::Busy { version } => self.let_go(version),
            State::Starting { destined: None } | State::Generic | State::Ending => {}
        }
    }

    /// Nothing is left of it.
    fn forget(&mut self, slot: Slot) {
        self.is_ahead_no_more(slot, false);
        if let Some(sandbox) = self.sandboxes.remove(slot) {
            self.by_id.remove(&sandbox.id);
            self.taken.memory_mb -= sandbox.memory_mb;
        }
    }
}
