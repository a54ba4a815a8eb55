//! New sandboxes: ordered for waiters first, then to keep generic ones ready; and what becomes of them when they are made.

use std::time::Duration;

use crate::domain::function::Runtime;
use crate::domain::ids::SandboxId;
use crate::domain::outcome::StartType;

use super::room::Room;
use super::slab::{Link, Slot};
use super::{Action, EndReason, GENERIC_MEMORY_MB, Pool, Refusal, Sandbox, State};

/// Versions looked at past the oldest that can't be helped now, so that one event never costs a walk over all that wait.
const BLOCKED_MAX: usize = 16;

/// Between the first generic sandbox that is taken and the start of another: the call that took it is over by then, mostly, and no start
/// takes the processors from it.
const REFILL_AFTER: Duration = Duration::from_millis(10);

/// The first pause of background starts after a failed one; it doubles from there.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

enum Step {
    Ordered,
    /// Its turn keeps the room that is being made.
    Reserved,
    /// Others may be helped meanwhile.
    Blocked,
    /// Its owner has all that one may have.
    OverShare,
    /// Idle sandboxes of its owner went, so that it is somebody else's turn perhaps.
    Again,
    /// Only calls that end make room for it, and then its owner would hold so much.
    Short {
        held_mb: u64,
    },
}

impl Pool {
    /// Orders what waiters need, for the owner that holds least first; with nobody in need, refills the generic ones.
    pub(super) fn grow(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (mut from, mut blocked, mut needy) = ((0, 0, 0), 0, false);
        // Who is short of room, and what they would hold with it: what comes free is not for those who would hold more.
        let mut short: Option<(Slot, u64)> = None;
        // How far the versions of the last owner were gone through.
        let (mut last, mut after) = (None, 0);
        while let Some(&(held_mb, seq, owner)) = self.wanting.range(from..).next() {
            if short.is_some_and(|(_, held_mb_max)| held_mb > held_mb_max) {
                return;
            }
            if last != Some(owner) {
                (last, after) = (Some(owner), 0);
            }
            // An owner that is given something comes again, behind those that hold less.
            from = (held_mb, seq, owner + 1);
            while let Some(&(seq, version)) = self.owners[owner].wanting.range((after, 0)..).next() {
                let would_hold_mb = self.owners[owner].held_mb + self.versions[version].charge_mb();
                let may = short.is_none_or(|(of, held_mb_max)| of == owner || would_hold_mb <= held_mb_max);
                match if may { self.create_for(version, out) } else { Step::Blocked } {
                    Step::Ordered => {
                        self.reindex(version);
                        break;
                    }
                    Step::Reserved => return,
                    Step::Again => {
                        (from, last, after, short) = ((0, 0, 0), None, 0, None);
                        break;
                    }
                    Step::OverShare => after = seq + 1,
                    Step::Blocked => (after, needy) = (seq + 1, true),
                    Step::Short { held_mb } => {
                        (after, needy) = (seq + 1, true);
                        short = short.or(Some((owner, held_mb)));
                    }
                }
                blocked += 1;
                if blocked == BLOCKED_MAX {
                    return;
                }
            }
        }
        if !needy && !self.draining {
            self.prepare(out);
            self.refill(now, out);
        }
    }

    fn create_for(&mut self, version: Slot, out: &mut Vec<Action>) -> Step {
        let pool = &self.versions[version];
        let (charge_mb, owner) = (pool.charge_mb(), pool.owner);
        let Some(need) = self.need(version) else { return Step::Blocked };
        let within_share = self.is_within_share(owner, charge_mb, 0, 0);
        if within_share && self.is_short_of_room(version) {
            return Step::Short { held_mb: self.owners[owner].held_mb + charge_mb };
        }
        if !within_share {
            return if self.make_own_room(version, out) { Step::Again } else { Step::OverShare };
        }
        match self.make_room(need, out) {
            Room::Now => {}
            Room::Coming => return Step::Reserved,
            Room::None => return Step::Blocked,
        }
        let generic = need.generic_of.and_then(|runtime| self.runtimes[runtime as usize].ready.back());
        self.order(version, generic, out);
        let pool = &mut self.versions[version];
        pool.counting_on = (pool.counting_on + 1).min(pool.waiters.len());
        Step::Ordered
    }

    pub(super) fn start(
        &mut self,
        runtime: Runtime,
        memory_mb: u64,
        destined: Option<Slot>,
        out: &mut Vec<Action>,
    ) -> Slot {
        let id = self.reserve_id();
        let slot = self.sandboxes.insert(Sandbox {
            id,
            runtime,
            state: State::Starting { destined },
            memory_mb,
            since: self.now,
            frozen: false,
            dead: false,
            ahead: false,
            clock: 0,
            group: Link::default(),
            aging: Link::default(),
            unfrozen: Link::default(),
        });
        self.by_id.insert(id, slot);
        self.taken.starting += 1;
        self.taken.memory_mb += memory_mb;
        out.push(Action::Start { sandbox: id, runtime });
        slot
    }

    pub(super) fn specialise(&mut self, slot: Slot, version: Slot, start_type: StartType, out: &mut Vec<Action>) {
        let sandbox = &mut self.sandboxes[slot];
        sandbox.state = State::Specialising { version, start_type };
        sandbox.since = self.now;
        out.push(Action::Specialise { sandbox: sandbox.id, version: self.versions[version].version.clone() });
    }

    pub(super) fn charge(&mut self, slot: Slot, memory_mb: u64) {
        let charged = &mut self.sandboxes[slot].memory_mb;
        self.taken.memory_mb = self.taken.memory_mb - *charged + memory_mb;
        *charged = memory_mb;
    }

    pub(super) fn started(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        let State::Starting { destined } = self.sandboxes[slot].state else { return };
        self.taken.starting -= 1;
        self.note_start(slot);
        match destined {
            Some(version) => self.started_for(slot, version, now, out),
            None => {
                self.runtimes[self.sandboxes[slot].runtime as usize].coming -= 1;
                self.keep_generic(slot, now, out);
            }
        }
        self.grow(now, out);
    }

    /// It becomes the version's even when its waiter is gone, unless the version is on its way out.
    fn started_for(&mut self, slot: Slot, version: Slot, now: Duration, out: &mut Vec<Action>) {
        let pool = &mut self.versions[version];
        let leaving = (pool.retired || self.draining) && pool.waiters.is_empty();
        if !leaving && !self.sandboxes[slot].dead {
            return self.specialise(slot, version, StartType::Cold, out);
        }
        pool.coming -= 1;
        self.let_go(version);
        self.is_ahead_no_more(slot, false);
        self.sandboxes[slot].state = State::Starting { destined: None };
        self.charge(slot, GENERIC_MEMORY_MB);
        self.keep_generic(slot, now, out);
        self.reindex(version);
    }

    fn keep_generic(&mut self, slot: Slot, now: Duration, out: &mut Vec<Action>) {
        let sandbox = &self.sandboxes[slot];
        let runtime = sandbox.runtime as usize;
        let full = self.runtimes[runtime].ready.len() >= self.settings.prewarmed[runtime];
        match (sandbox.dead, self.draining) {
            (true, _) => self.end(slot, EndReason::Died, out),
            (_, true) => self.end(slot, EndReason::Draining, out),
            _ if full && self.wanting.is_empty() => self.end(slot, EndReason::Surplus, out),
            _ => self.make_generic(slot, now),
        }
    }

    pub(super) fn start_failed(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        let State::Starting { destined } = self.sandboxes[slot].state else { return };
        self.taken.starting -= 1;
        let runtime = self.sandboxes[slot].runtime as usize;
        self.back_off(runtime, now);
        self.forget(slot);
        match destined {
            Some(version) => {
                self.let_go(version);
                self.creation_failed(version, now, out);
            }
            None => {
                self.runtimes[runtime].coming -= 1;
                self.grow(now, out);
            }
        }
    }

    /// A runtime that does not start, or dies before it is used, is left alone for a while by the refill.
    pub(super) fn back_off(&mut self, runtime: usize, now: Duration) {
        let runtime = &mut self.runtimes[runtime];
        let pause = BACKOFF_FIRST.saturating_mul(1 << runtime.failures.min(16)).min(BACKOFF_MAX);
        runtime.failures = runtime.failures.saturating_add(1);
        runtime.not_before = now + pause;
    }

    pub(super) fn specialised(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        let State::Specialising { version, start_type } = self.sandboxes[slot].state else { return };
        self.versions[version].coming -= 1;
        self.note_specialise(slot, version);
        self.runtimes[self.sandboxes[slot].runtime as usize].failures = 0;
        if self.sandboxes[slot].dead {
            self.end(slot, EndReason::Died, out);
        } else {
            self.make_idle(slot, version, Some(start_type), now);
        }
        self.settle(version, now, out);
    }

    pub(super) fn specialise_failed(&mut self, id: SandboxId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        let State::Specialising { version, .. } = self.sandboxes[slot].state else { return };
        self.end(slot, EndReason::SpecialiseFailed, out);
        self.creation_failed(version, now, out);
    }

    /// Tells the oldest waiter that counted on it, unless an idle sandbox is there for that one.
    fn creation_failed(&mut self, version: Slot, now: Duration, out: &mut Vec<Action>) {
        let pool = &mut self.versions[version];
        pool.coming -= 1;
        if pool.counting_on > 0 && pool.waiters.len() > pool.idle.len() {
            pool.counting_on -= 1;
            if let Some(front) = pool.waiters.front()
                && let Some(waiter) = self.leave(front)
            {
                out.push(Action::Refuse { waiter: waiter.id, reason: Refusal::CreationFailed });
            }
        }
        self.settle(version, now, out);
    }

    /// Starts generic sandboxes where too few are ready; never at anybody's cost.
    fn refill(&mut self, now: Duration, out: &mut Vec<Action>) {
        for runtime in Runtime::ALL {
            while self.lacks(runtime) && self.runtimes[runtime as usize].not_before <= now {
                let room = self.taken.starting < self.settings.starting_max
                    && self.taken.memory_mb + self.taken.lent_mb + GENERIC_MEMORY_MB <= self.settings.memory_budget_mb
                    && self.sandboxes.len() < self.settings.sandboxes_max;
                if !room {
                    return;
                }
                self.runtimes[runtime as usize].coming += 1;
                self.start(runtime, GENERIC_MEMORY_MB, None, out);
            }
        }
    }

    /// Before one is taken. Those taken meanwhile put nothing off any further.
    pub(super) fn put_refill_off(&mut self, runtime: Runtime) {
        if !self.lacks(runtime) {
            let runtime = &mut self.runtimes[runtime as usize];
            runtime.not_before = runtime.not_before.max(self.now + REFILL_AFTER);
        }
    }

    fn lacks(&self, runtime: Runtime) -> bool {
        let pool = &self.runtimes[runtime as usize];
        pool.ready.len() + pool.coming < self.settings.prewarmed[runtime as usize]
    }

    /// When the first pause of a runtime that lacks generic sandboxes is over.
    pub fn next_refill(&self, now: Duration) -> Option<Duration> {
        if self.draining {
            return None;
        }
        let waiting = Runtime::ALL.into_iter().filter(|runtime| self.lacks(*runtime));
        let pauses = waiting.map(|runtime| self.runtimes[runtime as usize].not_before);
        pauses.filter(|not_before| *not_before > now).min()
    }
}
