//! Sandboxes that wait: idle ones of a version and generic ones, their aging, freezing and end.

use std::time::Duration;

use crate::domain::ids::VersionKey;
use crate::domain::outcome::StartType;

use super::slab::Slot;
use super::{Action, EndReason, Pool, RUNTIMES, State};

impl Pool {
    /// When [`super::Event::Tick`] has something to do at the earliest; `None`: not before another event.
    pub fn next_tick(&self, now: Duration) -> Option<Duration> {
        let freeze = self.unfrozen.front().map(|slot| self.sandboxes[slot].since + self.settings.freeze_after);
        let end = self.lapsing.first().map(|(at, _)| *at);
        [freeze, end, self.next_watch(), self.next_refill(now), self.habits.next_due(now)].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some(&(at, version)) = self.lapsing.first()
            && at <= now
        {
            self.lapse(version, now, out);
        }
        while let Some(slot) = self.unfrozen.front() {
            let sandbox = &mut self.sandboxes[slot];
            if sandbox.since + self.settings.freeze_after > now {
                break;
            }
            sandbox.frozen = true;
            out.push(Action::Freeze { sandbox: sandbox.id });
            self.unfrozen.unlink(&mut self.sandboxes, |s| &mut s.unfrozen, slot);
        }
        self.look_again();
        self.serve(out);
        self.grow(now, out);
    }

    /// Ends those of a version's idle sandboxes that are kept for too long.
    fn lapse(&mut self, version: Slot, now: Duration, out: &mut Vec<Action>) {
        while let Some(slot) = self.versions[version].idle.front()
            && self.lapses_at(version).is_some_and(|at| at <= now)
        {
            self.take_idle(slot, version);
            self.end(slot, EndReason::KeepAlive, out);
        }
        self.place_lapse(version, self.lapses_at(version));
        self.reindex(version);
    }

    pub(super) fn make_idle(&mut self, slot: Slot, version: Slot, fresh: Option<StartType>, now: Duration) {
        let sandbox = &mut self.sandboxes[slot];
        sandbox.state = State::Idle { version, fresh };
        sandbox.since = now;
        sandbox.clock = self.clock;
        self.versions[version].idle.push_back(&mut self.sandboxes, |s| &mut s.group, slot);
        self.aging.push_back(&mut self.sandboxes, |s| &mut s.aging, slot);
        self.unfrozen.push_back(&mut self.sandboxes, |s| &mut s.unfrozen, slot);
        self.await_lapse(version);
    }

    /// Takes an idle one out of all chains; whether it was frozen.
    pub(super) fn take_idle(&mut self, slot: Slot, version: Slot) -> bool {
        self.versions[version].idle.unlink(&mut self.sandboxes, |s| &mut s.group, slot);
        self.aging.unlink(&mut self.sandboxes, |s| &mut s.aging, slot);
        self.take_unfrozen(slot)
    }

    pub(super) fn make_generic(&mut self, slot: Slot, now: Duration) {
        let sandbox = &mut self.sandboxes[slot];
        sandbox.state = State::Generic;
        sandbox.since = now;
        let runtime = sandbox.runtime as usize;
        // Never frozen: nobody's code is in it that could run, and thawing it takes its first caller's time.
        self.runtimes[runtime].ready.push_back(&mut self.sandboxes, |s| &mut s.group, slot);
    }

    pub(super) fn take_generic(&mut self, slot: Slot) {
        let runtime = self.sandboxes[slot].runtime as usize;
        self.runtimes[runtime].ready.unlink(&mut self.sandboxes, |s| &mut s.group, slot);
    }

    fn take_unfrozen(&mut self, slot: Slot) -> bool {
        let was_frozen = std::mem::take(&mut self.sandboxes[slot].frozen);
        if !was_frozen {
            self.unfrozen.unlink(&mut self.sandboxes, |s| &mut s.unfrozen, slot);
        }
        was_frozen
    }

    pub(super) fn retire(&mut self, key: VersionKey, now: Duration, out: &mut Vec<Action>) {
        self.habits.retire(key);
        let Some(&slot) = self.by_key.get(&key) else { return };
        self.versions[slot].retired = true;
        self.settle(slot, now, out);
    }

    pub(super) fn drain(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.draining = true;
        self.habits.expect_nothing();
        let versions: Vec<Slot> = self.versions.iter().map(|(slot, _)| slot).collect();
        for version in versions {
            self.settle(version, now, out);
        }
        for runtime in 0..RUNTIMES {
            while let Some(slot) = self.runtimes[runtime].ready.front() {
                self.take_generic(slot);
                self.end(slot, EndReason::Draining, out);
            }
        }
    }

    /// Ends idle sandboxes of a version that is not to keep any beyond what its waiters need.
    pub(super) fn trim(&mut self, version: Slot, out: &mut Vec<Action>) {
        let reason = match (self.draining, self.versions[version].retired) {
            (true, _) => EndReason::Draining,
            (_, true) => EndReason::Retired,
            _ => return,
        };
        while self.versions[version].idle.len() > self.versions[version].waiters.len() {
            let Some(slot) = self.versions[version].idle.front() else { return };
            self.take_idle(slot, version);
            self.end(slot, reason, out);
        }
    }
}
