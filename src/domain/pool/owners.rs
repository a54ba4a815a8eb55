//! Owners: what each has of this machine, how much of it one may have, and whose turn it is.
//!
//! A call to spare goes to the owner with the fewest calls running, a new sandbox to the one with the least memory; among equals, and
//! within one owner, the oldest waiter comes first. So whoever asks for little is served next, however many of somebody else's wait. A
//! part of everything is out of any single owner's reach: it is there at once for the next one, also when calls take long.

use std::collections::BTreeSet;
use std::iter;

use crate::domain::ids::Owner;

use super::slab::{Chain, Slot};
use super::{Action, EndReason, Pool, State};

/// The most that one owner may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Calls running at once; more of its calls wait.
    pub concurrency: usize,
    /// Calls running or waiting; beyond it they are refused.
    pub calls: usize,
    /// Sandboxes that are not ending.
    pub sandboxes: usize,
    /// Memory promised to them. A first sandbox is allowed whatever it takes.
    pub memory_mb: u64,
}

impl Share {
    /// Everything, as for a single owner.
    pub const WHOLE: Self =
        Self { concurrency: usize::MAX, calls: usize::MAX, sandboxes: usize::MAX, memory_mb: u64::MAX };
}

/// What one owner has. Lives as long as one of its versions does.
#[derive(Debug)]
pub(super) struct OwnerPool {
    name: Owner,
    versions: usize,
    /// Calls running.
    pub active: usize,
    pub waiting: usize,
    /// Sandboxes that are not ending, and their memory.
    pub sandboxes: usize,
    pub held_mb: u64,
    /// Of those, the idle ones of versions that nobody waits for.
    pub spare: usize,
    pub spare_mb: u64,
    /// Versions with waiters and idle sandboxes, by their oldest waiter.
    pub servable: BTreeSet<(u64, Slot)>,
    /// Versions that need another sandbox, by their oldest waiter.
    pub wanting: BTreeSet<(u64, Slot)>,
    /// Its place in `Pool::servable`.
    servable_at: Option<(usize, u64)>,
    /// Its place in `Pool::wanting`.
    wanting_at: Option<(u64, u64)>,
}

impl OwnerPool {
    /// Whether one more of its calls may run at once.
    pub fn may_begin(&self, share: &Share) -> bool {
        self.active < share.concurrency && self.active + self.waiting < share.calls
    }
}

impl Pool {
    /// The owner of a version that is about to be added.
    pub(super) fn owner_of(&mut self, name: &Owner) -> Slot {
        let slot = match self.by_owner.get(name) {
            Some(slot) => *slot,
            None => {
                let slot = self.owners.insert(OwnerPool {
                    name: name.clone(),
                    versions: 0,
                    active: 0,
                    waiting: 0,
                    sandboxes: 0,
                    held_mb: 0,
                    spare: 0,
                    spare_mb: 0,
                    servable: BTreeSet::new(),
                    wanting: BTreeSet::new(),
                    servable_at: None,
                    wanting_at: None,
                });
                self.by_owner.insert(name.clone(), slot);
                slot
            }
        };
        self.owners[slot].versions += 1;
        slot
    }

    /// One of its versions is gone.
    pub(super) fn leave_owner(&mut self, slot: Slot) {
        let owner = &mut self.owners[slot];
        owner.versions -= 1;
        if owner.versions == 0
            && let Some(owner) = self.owners.remove(slot)
        {
            self.by_owner.remove(&owner.name);
        }
    }

    /// Brings an owner's places in line up to date. Costs nothing while nobody waits.
    pub(super) fn place_owner(&mut self, slot: Slot) {
        let owner = &mut self.owners[slot];
        let may_call = owner.active < self.settings.share.concurrency;
        let servable = owner.servable.first().filter(|_| may_call).map(|(seq, _)| (owner.active, *seq));
        let wanting = owner.wanting.first().map(|(seq, _)| (owner.held_mb, *seq));
        place(&mut self.servable, &mut owner.servable_at, slot, servable);
        place(&mut self.wanting, &mut owner.wanting_at, slot, wanting);
    }

    /// A sandbox becomes one of this version's.
    pub(super) fn hold(&mut self, version: Slot) {
        let (slot, memory_mb) = (self.versions[version].owner, self.versions[version].charge_mb());
        self.owners[slot].sandboxes += 1;
        self.owners[slot].held_mb += memory_mb;
        self.place_owner(slot);
    }

    /// One of this version's sandboxes is not, or is no more to be counted as one.
    pub(super) fn let_go(&mut self, version: Slot) {
        let (slot, memory_mb) = (self.versions[version].owner, self.versions[version].charge_mb());
        self.owners[slot].sandboxes -= 1;
        self.owners[slot].held_mb -= memory_mb;
        self.place_owner(slot);
    }

    /// Calls of this version's owner running, plus or minus one.
    pub(super) fn count_call(&mut self, version: Slot, begins: bool) {
        let slot = self.versions[version].owner;
        let active = &mut self.owners[slot].active;
        *active = if begins { *active + 1 } else { *active - 1 };
        self.place_owner(slot);
    }

    /// Counts the idle sandboxes of a version anew: those nobody waits for may be evicted.
    pub(super) fn count_spare(&mut self, slot: Slot) {
        let version = &mut self.versions[slot];
        let spare = if version.waiters.is_empty() { version.idle.len() } else { 0 };
        let before = std::mem::replace(&mut version.spare, spare);
        if before != spare {
            let memory_mb = version.charge_mb();
            let owner = &mut self.owners[version.owner];
            owner.spare = owner.spare - before + spare;
            owner.spare_mb = owner.spare_mb - before as u64 * memory_mb + spare as u64 * memory_mb;
            self.taken.spare = self.taken.spare - before + spare;
            self.taken.spare_mb = self.taken.spare_mb - before as u64 * memory_mb + spare as u64 * memory_mb;
        }
    }

    /// Whether the owner may hold one more sandbox of this version, after ending idle ones of its own.
    pub(super) fn make_own_room(&mut self, version: Slot, out: &mut Vec<Action>) -> bool {
        let (slot, memory_mb) = (self.versions[version].owner, self.versions[version].charge_mb());
        let owner = &self.owners[slot];
        if !self.is_within_share(slot, memory_mb, owner.spare_mb, owner.spare) {
            return false;
        }
        while !self.is_within_share(slot, memory_mb, 0, 0) {
            if !self.evict_own(slot, out) {
                return false;
            }
        }
        true
    }

    /// Whether one more sandbox is within the owner's share if so much were given back.
    pub(super) fn is_within_share(&self, owner: Slot, memory_mb: u64, back_mb: u64, back: usize) -> bool {
        let (owner, share) = (&self.owners[owner], &self.settings.share);
        let is_first = owner.sandboxes == back;
        is_first || owner.sandboxes - back < share.sandboxes && owner.held_mb - back_mb + memory_mb <= share.memory_mb
    }

    /// Ends the longest idle sandbox of an owner that nobody waits for.
    fn evict_own(&mut self, owner: Slot, out: &mut Vec<Action>) -> bool {
        let mut idle = iter::successors(self.aging.front(), |slot| Chain::after(&self.sandboxes, |s| &s.aging, *slot));
        let found = idle.find_map(|slot| match self.sandboxes[slot].state {
            State::Idle { version, .. } => {
                let pool = &self.versions[version];
                (pool.owner == owner && pool.waiters.is_empty()).then_some((slot, version))
            }
            _ => None,
        });
        let Some((slot, version)) = found else { return false };
        self.take_idle(slot, version);
        self.end(slot, EndReason::Evicted, out);
        self.reindex(version);
        true
    }

    /// A call has ended: where an owner who has less, and would even with it, is short of room for a sandbox, this one goes,
    /// rather than serve the next of its own owner's waiters.
    pub(super) fn give_way(&mut self, version: Slot, out: &mut Vec<Action>) {
        let Some(&(held_mb, _, needy)) = self.wanting.first() else { return };
        let Some(&(_, wanted)) = self.owners[needy].wanting.first() else { return };
        let pool = &self.versions[version];
        let Some(slot) = pool.idle.front().filter(|_| !pool.waiters.is_empty()) else { return };
        let wanted_mb = self.versions[wanted].charge_mb();
        let has_more = self.owners[pool.owner].held_mb > held_mb + wanted_mb;
        if !has_more || !self.is_within_share(needy, wanted_mb, 0, 0) || !self.is_short_of_room(wanted) {
            return;
        }
        self.take_idle(slot, version);
        self.end(slot, EndReason::Evicted, out);
        self.reindex(version);
    }
}

/// Moves an entry of an index to `wanted`, from where it is.
pub(super) fn place<K: Copy + Ord, I: Place<K>>(index: &mut I, at: &mut Option<K>, slot: Slot, wanted: Option<K>) {
    if *at == wanted {
        return;
    }
    if let Some(old) = *at {
        index.drop_at(old, slot);
    }
    if let Some(new) = wanted {
        index.put_at(new, slot);
    }
    *at = wanted;
}

/// An index in which slots stand by a key.
pub(super) trait Place<K> {
    fn put_at(&mut self, key: K, slot: Slot);
    fn drop_at(&mut self, key: K, slot: Slot);
}

impl Place<u64> for BTreeSet<(u64, Slot)> {
    fn put_at(&mut self, key: u64, slot: Slot) {
        self.insert((key, slot));
    }

    fn drop_at(&mut self, key: u64, slot: Slot) {
        self.remove(&(key, slot));
    }
}

impl<K: Ord> Place<(K, u64)> for BTreeSet<(K, u64, Slot)> {
    fn put_at(&mut self, (rank, seq): (K, u64), slot: Slot) {
        self.insert((rank, seq, slot));
    }

    fn drop_at(&mut self, (rank, seq): (K, u64), slot: Slot) {
        self.remove(&(rank, seq, slot));
    }
}
