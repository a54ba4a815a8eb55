//! Room for one more sandbox: the limits on their number and memory, and whom to evict for it.

use std::iter;
use std::time::Duration;

use crate::domain::function::Runtime;
use crate::domain::policy::evict::{self, Candidate};

use super::slab::{Chain, Slot};
use super::{Action, EndReason, GENERIC_MEMORY_MB, Pool, RUNTIMES, State};

/// What a creation adds to what is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub memory_mb: u64,
    pub sandboxes: usize,
    /// The newest generic sandbox of this runtime is to be used, and so does not give way.
    pub generic_of: Option<Runtime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// When those that are ending have ended.
    Coming,
    /// Not before something changes.
    None,
}

impl Pool {
    /// Whether there is room, after evicting what may go for it.
    pub(super) fn make_room(&mut self, need: Need, out: &mut Vec<Action>) -> Room {
        if self.fits(need, 0, 0) {
            return Room::Now;
        }
        if self.fits(need, self.taken.ending_mb, self.taken.ending) {
            return Room::Coming;
        }
        let (idle_mb, idle) = self.evictable(need);
        if !self.fits(need, self.taken.ending_mb + idle_mb, self.taken.ending + idle) {
            return Room::None;
        }
        while !self.fits(need, self.taken.ending_mb, self.taken.ending) {
            if !self.evict_one(need, out) {
                return Room::None;
            }
        }
        Room::Coming
    }

    /// Whether `need` fits if so much were given back.
    pub(super) fn fits(&self, need: Need, back_mb: u64, back: usize) -> bool {
        self.taken.memory_mb + self.taken.lent_mb - back_mb + need.memory_mb <= self.settings.memory_budget_mb
            && self.sandboxes.len() - back + need.sandboxes <= self.settings.sandboxes_max
    }

    /// Memory and number of those that may go. The idle ones of versions with waiters may not: they are as good as taken.
    fn evictable(&self, need: Need) -> (u64, usize) {
        let generic: usize = (0..RUNTIMES).map(|runtime| self.spare_generics(runtime, need)).sum();
        (self.taken.spare_mb + generic as u64 * GENERIC_MEMORY_MB, self.taken.spare + generic)
    }

    /// What one more sandbox of this version needs; `None`: a start, and as many are under way as may.
    pub(super) fn need(&self, version: Slot) -> Option<Need> {
        let version = &self.versions[version];
        let (runtime, memory_mb) = (version.version.runtime, version.charge_mb());
        if !self.runtimes[runtime as usize].ready.is_empty() {
            return Some(Need { memory_mb: memory_mb - GENERIC_MEMORY_MB, sandboxes: 0, generic_of: Some(runtime) });
        }
        (self.taken.starting < self.settings.starting_max).then_some(Need { memory_mb, sandboxes: 1, generic_of: None })
    }

    /// Whether one more sandbox of this version has to wait for calls to end.
    pub(super) fn is_short_of_room(&self, version: Slot) -> bool {
        self.need(version).is_some_and(|need| {
            let (idle_mb, idle) = self.evictable(need);
            !self.fits(need, self.taken.ending_mb + idle_mb, self.taken.ending + idle)
        })
    }

    /// Takes so much of the budget away, and has idle sandboxes make up for it as far as they go.
    pub(super) fn lend(&mut self, memory_mb: u64, out: &mut Vec<Action>) {
        self.taken.lent_mb += memory_mb;
        let nothing = Need { memory_mb: 0, sandboxes: 0, generic_of: None };
        while !self.fits(nothing, self.taken.ending_mb, self.taken.ending) && self.evict_one(nothing, out) {}
    }

    pub(super) fn give_back(&mut self, memory_mb: u64, now: Duration, out: &mut Vec<Action>) {
        self.taken.lent_mb = self.taken.lent_mb.saturating_sub(memory_mb);
        self.grow(now, out);
    }

    fn spare_generics(&self, runtime: usize, need: Need) -> usize {
        let used = need.generic_of.is_some_and(|of| of as usize == runtime);
        self.runtimes[runtime].ready.len() - usize::from(used)
    }

    /// Idle ones of other versions first, then generic ones.
    fn evict_one(&mut self, need: Need, out: &mut Vec<Action>) -> bool {
        if let Some((id, clock)) = evict::choose(self.settings.eviction, self.candidates())
            && let Some(&slot) = self.by_id.get(&id)
            && let State::Idle { version, .. } = self.sandboxes[slot].state
        {
            self.clock = self.clock.max(clock);
            self.take_idle(slot, version);
            self.end(slot, EndReason::Evicted, out);
            self.reindex(version);
            return true;
        }
        let runtime = (0..RUNTIMES).find(|runtime| self.spare_generics(*runtime, need) > 0);
        let Some(slot) = runtime.and_then(|runtime| self.runtimes[runtime].ready.front()) else { return false };
        self.take_generic(slot);
        self.end(slot, EndReason::Evicted, out);
        true
    }

    /// Idle sandboxes of versions nobody waits for, longest idle first.
    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let all = iter::successors(self.aging.front(), |slot| Chain::after(&self.sandboxes, |s| &s.aging, *slot));
        all.filter_map(|slot| {
            let sandbox = &self.sandboxes[slot];
            let State::Idle { version, .. } = sandbox.state else { return None };
            let pool = &self.versions[version];
            pool.waiters.is_empty().then(|| Candidate {
                sandbox: sandbox.id,
                version: pool.version.key(),
                idle_since: sandbox.since,
                memory_mb: sandbox.memory_mb,
                clock: sandbox.clock,
                uses: pool.uses,
                cost: self.cost(pool),
            })
        })
    }
}
