//! Functions that are not called: what is learned of their pauses, and the sandbox made ready before the next call.

use std::time::Duration;

use crate::domain::ids::{FunctionId, Owner};
use crate::domain::outcome::StartType;
use crate::domain::policy::idle::IdleTimes;
use crate::domain::policy::keep_alive::{Ahead, Plan};

use super::room::Need;
use super::slab::Slot;
use super::{Action, GENERIC_MEMORY_MB, Pool, VersionPool};

/// Sandboxes made ahead of predicted calls: how many, and of how many the call came or did not. The others still wait for theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeAhead {
    pub made: u64,
    pub used: u64,
    pub wasted: u64,
}

impl Pool {
    /// What an earlier process knew of a function's pauses.
    pub fn recall(&mut self, function: FunctionId, pauses: IdleTimes) {
        self.habits.recall(function, pauses);
    }

    /// Up to `max` functions with what is known of their pauses, each once after it changed.
    pub fn changed_habits(&mut self, max: usize) -> Vec<(FunctionId, IdleTimes)> {
        self.habits.take_changed(max)
    }

    /// A call of this version is about to be served or to wait.
    pub(super) fn note_called(&mut self, slot: Slot) {
        let version = &self.versions[slot];
        let Some(habit) = version.habit.filter(|_| version.busy == 0 && version.waiters.is_empty()) else { return };
        if self.habits.called(habit, self.now) {
            self.versions[slot].plan = self.settings.keep_alive.plan(&self.habits.of(habit).idle);
        }
    }

    /// A call of this version is over.
    pub(super) fn note_rests(&mut self, slot: Slot) {
        let version = &self.versions[slot];
        if let Some(habit) = version.habit.filter(|_| version.busy == 0 && version.waiters.is_empty()) {
            self.habits.rests(habit, self.now);
        }
    }

    /// Nothing is left of this version in the pool.
    pub(super) fn let_go_of_habit(&mut self, version: VersionPool) {
        let Some(habit) = version.habit else { return };
        if let Some(Ahead { from, until }) = version.plan.ahead.filter(|_| !version.retired && !self.draining) {
            self.habits.expect(habit, &version.version, from, until, self.now);
        }
        self.habits.release(habit);
    }

    /// Makes sandboxes ready for calls that are expected now; never at anybody's cost: where there is no room, or its owner has
    /// its share or waits for more of it, it is left.
    pub(super) fn prepare(&mut self, out: &mut Vec<Action>) {
        while let Some(runtime) = self.habits.first_due(self.now) {
            let generic = self.runtimes[runtime as usize].ready.back();
            if generic.is_none() && self.taken.starting >= self.settings.starting_max {
                return;
            }
            let Some((version, keep)) = self.habits.take_due(self.now) else { return };
            let charge_mb = u64::from(version.memory_mb).max(GENERIC_MEMORY_MB);
            let need = match generic {
                Some(_) => Need { memory_mb: charge_mb - GENERIC_MEMORY_MB, sandboxes: 0, generic_of: Some(runtime) },
                None => Need { memory_mb: charge_mb, sandboxes: 1, generic_of: None },
            };
            if self.by_key.contains_key(&version.key())
                || !self.fits(need, 0, 0)
                || !self.has_share_left(&version.owner, charge_mb)
            {
                continue;
            }
            let slot = self.add_version(version.key(), &version);
            self.versions[slot].plan = Plan { keep, ahead: None };
            let sandbox = self.order(slot, generic, out);
            self.sandboxes[sandbox].ahead = true;
            self.made_ahead.made += 1;
        }
    }

    /// Its call has come, or it serves something else, or nothing.
    pub(super) fn is_ahead_no_more(&mut self, slot: Slot, used: bool) {
        if std::mem::take(&mut self.sandboxes[slot].ahead) {
            *if used { &mut self.made_ahead.used } else { &mut self.made_ahead.wasted } += 1;
        }
    }

    /// Whether this owner may hold so much more, and none of its callers wait for that.
    fn has_share_left(&self, owner: &Owner, memory_mb: u64) -> bool {
        let Some(&slot) = self.by_owner.get(owner) else { return true };
        self.owners[slot].wanting.is_empty() && self.is_within_share(slot, memory_mb, 0, 0)
    }

    /// When the first of a version's idle sandboxes is kept for too long; `None`: it has none.
    pub(super) fn lapses_at(&self, slot: Slot) -> Option<Duration> {
        let version = &self.versions[slot];
        let (oldest, newest) = (version.idle.front()?, version.idle.back()?);
        let surplus = self.sandboxes[oldest].since + self.settings.keep_alive.surplus();
        if version.busy + version.coming > 0 {
            return Some(surplus);
        }
        // While it is not called, all of them are the function's: none outlives the one that was used last.
        let all = self.sandboxes[newest].since + version.plan.keep;
        Some(if oldest == newest { all } else { all.min(surplus) })
    }

    /// An idle sandbox came. Most that come while others are watched for change nothing.
    pub(super) fn await_lapse(&mut self, slot: Slot) {
        let version = &self.versions[slot];
        let rests = version.busy + version.coming == 0;
        let keep = if rests { version.plan.keep } else { self.settings.keep_alive.surplus() };
        let at = self.now + keep;
        if version.lapses_at.is_none_or(|earlier| at < earlier) {
            self.place_lapse(slot, Some(at));
        }
    }

    /// When to look whether its idle ones are kept for too long.
    pub(super) fn place_lapse(&mut self, slot: Slot, at: Option<Duration>) {
        let before = std::mem::replace(&mut self.versions[slot].lapses_at, at);
        if let Some(before) = before {
            self.lapsing.remove(&(before, slot));
        }
        if let Some(at) = at {
            self.lapsing.insert((at, slot));
        }
    }

    /// Orders a sandbox for a version, out of `generic` if there is one. Which it is.
    pub(super) fn order(&mut self, version: Slot, generic: Option<Slot>, out: &mut Vec<Action>) -> Slot {
        let pool = &self.versions[version];
        let (runtime, charge_mb) = (pool.version.runtime, pool.charge_mb());
        self.hold(version);
        let sandbox = match generic {
            Some(slot) => {
                self.put_refill_off(runtime);
                self.take_generic(slot);
                self.charge(slot, charge_mb);
                self.specialise(slot, version, StartType::Prewarmed, out);
                slot
            }
            None => self.start(runtime, charge_mb, Some(version), out),
        };
        self.versions[version].coming += 1;
        self.note_growth(version);
        sandbox
    }
}
