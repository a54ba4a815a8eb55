//! Sandboxes to waiters: of the owner with the fewest calls the oldest that can be served, whenever a call may run; and the lines
//! versions stand in.

use std::time::Duration;

use crate::domain::outcome::StartType;

use super::owners::place;
use super::slab::Slot;
use super::{Action, Pool, State, WaiterId};

impl Pool {
    /// After a version's sandboxes changed: serve, end what is not wanted, create what is.
    pub(super) fn settle(&mut self, version: Slot, now: Duration, out: &mut Vec<Action>) {
        self.place_in_line(version);
        self.serve(out);
        self.trim(version, out);
        self.reindex(version);
        self.grow(now, out);
    }

    /// Gives calls that may run to the waiters whose turn it is.
    pub(super) fn serve(&mut self, out: &mut Vec<Action>) {
        while self.taken.active < self.settings.concurrency_max {
            let Some(&(_, _, owner)) = self.servable.first() else { return };
            let Some(&(_, version)) = self.owners[owner].servable.first() else { return };
            let Some(front) = self.versions[version].waiters.front() else { return };
            let Some(sandbox) = self.versions[version].idle.back() else { return };
            let Some(waiter) = self.leave(front) else { return };
            let pool = &mut self.versions[version];
            let counted = pool.counting_on > 0;
            pool.counting_on = pool.counting_on.saturating_sub(1);
            let start_type = match self.sandboxes[sandbox].state {
                State::Idle { fresh: Some(fresh), .. } => fresh,
                _ if counted => StartType::Stolen,
                _ => StartType::Warm,
            };
            self.assign(sandbox, version, waiter.id, start_type, out);
            self.place_in_line(version);
        }
    }

    pub(super) fn assign(
        &mut self,
        slot: Slot,
        version: Slot,
        waiter: WaiterId,
        start_type: StartType,
        out: &mut Vec<Action>,
    ) {
        let was_frozen = self.take_idle(slot, version);
        self.count_spare(version);
        self.is_ahead_no_more(slot, true);
        let sandbox = &mut self.sandboxes[slot];
        sandbox.state = State::Busy { version };
        sandbox.since = self.now;
        out.push(Action::Assign { waiter, sandbox: sandbox.id, start_type, was_frozen });
        let pool = &mut self.versions[version];
        pool.busy += 1;
        pool.uses = pool.uses.saturating_add(1);
        self.taken.active += 1;
        self.count_call(version, true);
        self.count_processors(version);
    }

    /// Brings a version's places in line up to date, and forgets it when nothing is left of it.
    pub(super) fn reindex(&mut self, slot: Slot) {
        self.place_in_line(slot);
        let version = &self.versions[slot];
        if version.waiters.is_empty() && version.sandboxes() == 0 {
            let (key, owner) = (version.version.key(), version.owner);
            self.unwatch(slot);
            self.place_lapse(slot, None);
            self.by_key.remove(&key);
            self.leave_owner(owner);
            if let Some(gone) = self.versions.remove(slot) {
                self.let_go_of_habit(gone);
            }
        }
    }

    /// Where a version stands with its owner, and in `watched`, and its owner among the others.
    pub(super) fn place_in_line(&mut self, slot: Slot) {
        let most = self.sandboxes_per_version();
        let version = &self.versions[slot];
        let lacks = version.waiters.len() > version.idle.len() + version.coming && version.sandboxes() < most;
        let wants = lacks && self.pays(version);
        let may_run = version.may_run();
        let held_back = !may_run && !version.waiters.is_empty() && !version.idle.is_empty();
        if lacks && !wants || held_back {
            self.watch(slot);
        }
        let version = &mut self.versions[slot];
        let oldest = version.waiters.front().map(|front| self.waiters[front].seq);
        let owner = &mut self.owners[version.owner];
        let servable = oldest.filter(|_| !version.idle.is_empty() && may_run);
        place(&mut owner.servable, &mut version.servable_at, slot, servable);
        place(&mut owner.wanting, &mut version.wanting_at, slot, oldest.filter(|_| wants));
        let owner = version.owner;
        self.count_spare(slot);
        self.place_owner(owner);
    }

    /// More could never run at once.
    pub(super) fn sandboxes_per_version(&self) -> usize {
        let settings = &self.settings;
        settings.per_version_max.min(settings.concurrency_max).min(settings.share.concurrency)
    }
}
