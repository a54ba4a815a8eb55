//! Callers: those served at once, those that wait, those that give up.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::function::Version;
use crate::domain::ids::VersionKey;
use crate::domain::outcome::StartType;
use crate::domain::policy::keep_alive::Plan;

use super::pace::Pace;
use super::slab::{Chain, Link, Slot};
use super::worth::History;
use super::{Action, Pool, Refusal, VersionPool, Waiter, WaiterId};

impl Pool {
    pub(super) fn checkout(&mut self, waiter: WaiterId, version: &Arc<Version>, patient: bool, out: &mut Vec<Action>) {
        if self.draining || self.cordoned {
            return out.push(Action::Refuse { waiter, reason: Refusal::Draining });
        }
        let key = version.key();
        let known = self.by_key.get(&key).copied();
        if let Some(slot) = known
            && self.taken.active < self.settings.concurrency_max
            && self.owners[self.versions[slot].owner].may_begin(&self.settings.share)
            && self.versions[slot].may_run()
            && let Some(sandbox) = self.versions[slot].idle.back()
        {
            self.note_called(slot);
            // Nobody else waits for this one: with a call to spare, whoever could be served has been.
            return self.assign(sandbox, slot, waiter, StartType::Warm, out);
        }
        let owner = self.by_owner.get(&version.owner).map(|slot| &self.owners[*slot]);
        if owner.is_some_and(|owner| owner.active + owner.waiting >= self.settings.share.calls) {
            return out.push(Action::Refuse { waiter, reason: Refusal::OwnerFull });
        }
        if self.waiters.len() >= self.settings.waiters_max {
            return out.push(Action::Refuse { waiter, reason: Refusal::WaitersFull });
        }
        if !patient && known.is_some_and(|slot| self.is_overloaded(&self.versions[slot])) {
            return out.push(Action::Refuse { waiter, reason: Refusal::Overloaded });
        }
        if u64::from(version.memory_mb) > self.settings.memory_budget_mb {
            return out.push(Action::Refuse { waiter, reason: Refusal::TooLarge });
        }
        let slot = known.unwrap_or_else(|| self.add_version(key, version));
        self.note_called(slot);
        self.join(waiter, slot);
        self.reindex(slot);
        self.grow(self.now, out);
        // With none ordered for it, it counts on one whose own waiter is gone.
        if let Some(&at) = self.by_key.get(&key) {
            let version = &mut self.versions[at];
            if version.counting_on + 1 == version.waiters.len() && version.counting_on < version.coming {
                version.counting_on += 1;
            }
        }
    }

    pub(super) fn add_version(&mut self, key: VersionKey, version: &Arc<Version>) -> Slot {
        let owner = self.owner_of(&version.owner);
        let adaptive = self.settings.keep_alive.is_adaptive();
        let habit = if adaptive { self.habits.hold(key.function) } else { None };
        let plan = match habit {
            Some(habit) => {
                self.habits.came(habit);
                self.settings.keep_alive.plan(&self.habits.of(habit).idle)
            }
            None => Plan { keep: self.settings.keep_alive.standard(), ahead: None },
        };
        let slot = self.versions.insert(VersionPool {
            version: version.clone(),
            owner,
            idle: Chain::new(),
            waiters: Chain::new(),
            coming: 0,
            busy: 0,
            counting_on: 0,
            retired: false,
            history: History::default(),
            spare: 0,
            servable_at: None,
            wanting_at: None,
            watched_at: None,
            lapses_at: None,
            habit,
            plan,
            pace: Pace::default(),
            uses: 0,
        });
        self.by_key.insert(key, slot);
        slot
    }

    pub(super) fn join(&mut self, id: WaiterId, version: Slot) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let slot = self.waiters.insert(Waiter { id, seq, version, link: Link::default() });
        self.by_waiter.insert(id, slot);
        self.owners[self.versions[version].owner].waiting += 1;
        if self.versions[version].waiters.is_empty() {
            self.begin_line(version);
        }
        self.versions[version].waiters.push_back(&mut self.waiters, |w| &mut w.link, slot);
    }

    /// Takes a waiter out of its queue.
    pub(super) fn leave(&mut self, slot: Slot) -> Option<Waiter> {
        let version = self.waiters[slot].version;
        let pool = &mut self.versions[version];
        pool.waiters.unlink(&mut self.waiters, |w| &mut w.link, slot);
        if pool.waiters.is_empty() {
            pool.history.line_ended = self.now;
        }
        self.owners[pool.owner].waiting -= 1;
        let waiter = self.waiters.remove(slot)?;
        self.by_waiter.remove(&waiter.id);
        Some(waiter)
    }

    pub(super) fn cancel(&mut self, id: WaiterId, now: Duration, out: &mut Vec<Action>) {
        let Some(&slot) = self.by_waiter.get(&id) else { return };
        let Some(waiter) = self.leave(slot) else { return };
        let version = &mut self.versions[waiter.version];
        version.counting_on = version.counting_on.min(version.waiters.len());
        self.trim(waiter.version, out);
        self.reindex(waiter.version);
        self.grow(now, out);
    }
}
