//! Room for one more sandbox: the limits on their number and memory, and whom to evict for it.

use std::iter;

use crate::domain::function::Runtime;
use crate::domain::policy::evict::{self, Candidate};

use super::slab::Chain;
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
        self.taken.memory_mb - back_mb + need.memory_mb <= self.settings.memory_budget_mb
            && self.sandboxes.len() - back + need.sandboxes <= self.settings.sandboxes_max
    }

    /// Memory and number of those that may go. The idle ones of versions with waiters may not: they are as good as taken.
    fn evictable(&self, need: Need) -> (u64, usize) {
        let (mut idle_mb, mut idle) = (self.taken.idle_mb, self.aging.len());
        for (_, version) in &self.servable {
            let version = &self.versions[*version];
            idle -= version.idle.len();
            idle_mb -= version.idle.len() as u64 * version.charge_mb();
        }
        let generic: usize = (0..RUNTIMES).map(|runtime| self.spare_generics(runtime, need)).sum();
        (idle_mb + generic as u64 * GENERIC_MEMORY_MB, idle + generic)
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
