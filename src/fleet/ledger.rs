//! A worker's account of its claims: how many of its idle sandboxes it has offered to whoever comes, and how many it has left to the
//! controllers that called them last. Pure; counts, not names: any idle sandbox of a version is as good as another.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::domain::ids::VersionKey;

use super::KEPT_FOR;
use super::wire::Claim;

/// What to tell those who take claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Offer(VersionKey, u32),
    Withdraw(VersionKey, u32),
}

#[derive(Default)]
struct OfVersion {
    /// Not taken yet, as far as is known here.
    offered: u32,
    /// Until when each is its last caller's.
    kept: VecDeque<Duration>,
}

#[derive(Default)]
pub(super) struct Ledger(HashMap<VersionKey, OfVersion>);

impl Ledger {
    /// A call came with a claim: that one is used up.
    pub fn used(&mut self, version: VersionKey, claim: Claim) {
        let Some(of) = self.0.get_mut(&version) else { return };
        match claim {
            Claim::None => {}
            Claim::Taken => of.offered = of.offered.saturating_sub(1),
            Claim::Held => drop(of.kept.pop_front()),
        }
    }

    /// After a call: whether its caller may have that sandbox again, of `idle` ones.
    pub fn keep(&mut self, version: VersionKey, idle: u32, now: Duration) -> bool {
        let of = self.0.entry(version).or_default();
        of.prune(now);
        let free = of.offered + (of.kept.len() as u32) < idle;
        if free {
            of.kept.push_back(now + KEPT_FOR);
        }
        free
    }

    /// What brings the offers in line with what is idle.
    pub fn reconcile(&mut self, idle: &[(VersionKey, u32)], now: Duration) -> Vec<Change> {
        let idle: HashMap<VersionKey, u32> = idle.iter().copied().collect();
        for version in idle.keys() {
            self.0.entry(*version).or_default();
        }
        let mut changes = Vec::new();
        self.0.retain(|version, of| {
            of.prune(now);
            let wanted = idle.get(version).copied().unwrap_or(0).saturating_sub(of.kept.len() as u32);
            if wanted > of.offered {
                changes.push(Change::Offer(*version, wanted - of.offered));
            } else if wanted < of.offered {
                changes.push(Change::Withdraw(*version, of.offered - wanted));
            }
            of.offered = wanted;
            wanted > 0 || !of.kept.is_empty()
        });
        changes
    }

    /// Versions with offers: what is believed of them is to be made good, since a claim that was taken and lost is not heard of.
    pub fn start_anew(&mut self) -> Vec<VersionKey> {
        let offered = self.0.iter_mut().filter(|(_, of)| of.offered > 0);
        offered
            .map(|(version, of)| {
                of.offered = 0;
                *version
            })
            .collect()
    }

    /// When something kept is free again.
    pub fn next_free(&self) -> Option<Duration> {
        self.0.values().filter_map(|of| of.kept.front().copied()).min()
    }
}

impl OfVersion {
    fn prune(&mut self, now: Duration) {
        while self.kept.front().is_some_and(|until| *until <= now) {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FunctionId;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn version(n: u128) -> VersionKey {
        VersionKey { function: FunctionId(Uuid::from_u128(n)), number: 1 }
    }

    #[test]
    fn what_is_kept_for_a_caller_is_not_offered_until_it_lapses() {
        let (mut ledger, v, now) = (Ledger::default(), version(1), Duration::from_secs(1));
        assert_eq!(ledger.reconcile(&[(v, 2)], now), [Change::Offer(v, 2)]);
        ledger.used(v, Claim::Taken);
        assert_eq!(ledger.reconcile(&[(v, 1)], now), []);
        assert!(ledger.keep(v, 2, now), "the one that came back");
        assert_eq!(ledger.reconcile(&[(v, 2)], now), []);
        assert!(!ledger.keep(v, 2, now), "the other is offered");
        assert_eq!(ledger.next_free(), Some(now + KEPT_FOR));
        assert_eq!(ledger.reconcile(&[(v, 2)], now + KEPT_FOR), [Change::Offer(v, 1)]);
        assert_eq!(ledger.reconcile(&[], now + KEPT_FOR), [Change::Withdraw(v, 2)]);
        assert!(ledger.0.is_empty());
    }

    #[test]
    fn steady_calls_of_one_caller_change_nothing_that_others_see() {
        let (mut ledger, v) = (Ledger::default(), version(1));
        ledger.reconcile(&[(v, 1)], Duration::ZERO);
        ledger.used(v, Claim::Taken);
        for ms in 1..1000 {
            let now = Duration::from_millis(ms);
            assert_eq!(ledger.reconcile(&[], now), [], "it runs");
            assert!(ledger.keep(v, 1, now));
            assert_eq!(ledger.reconcile(&[(v, 1)], now), []);
            ledger.used(v, Claim::Held);
        }
    }

    proptest! {
        /// Never more offered and kept together than there are.
        #[test]
        fn no_sandbox_is_promised_twice(steps in prop::collection::vec((0_u8..5, 0_u32..6, 0_u64..500), 1..100)) {
            let (mut ledger, v, mut now) = (Ledger::default(), version(1), Duration::ZERO);
            for (what, idle, ms) in steps {
                now += Duration::from_millis(ms);
                match what {
                    0 => ledger.used(v, Claim::Taken),
                    1 => ledger.used(v, Claim::Held),
                    2 => drop(ledger.start_anew()),
                    3 => {
                        ledger.keep(v, idle, now);
                        continue;
                    }
                    _ => {}
                }
                ledger.reconcile(&[(v, idle)], now);
                if let Some(of) = ledger.0.get(&v) {
                    prop_assert!(of.offered == idle.saturating_sub(of.kept.len() as u32));
                }
            }
        }
    }
}
