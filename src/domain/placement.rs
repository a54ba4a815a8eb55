//! Which worker a call is tried at first, and which after it, where no idle sandbox is known of.
//!
//! Each version has workers of its own by rendezvous hash, so that its code is unpacked on few of them, and a worker that comes or
//! goes moves the calls of no other. Of the first two the less loaded is asked first: one bad place costs nobody the other.

use super::ids::{VersionKey, WorkerId};

/// A worker as it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub worker: WorkerId,
    /// Calls running and waiting there.
    pub calls: u32,
    /// Calls that may run there at once.
    pub capacity: u32,
}

impl Candidate {
    /// Of all its places, how many are taken; above 1 where calls wait.
    fn load(&self) -> f64 {
        f64::from(self.calls) / f64::from(self.capacity.max(1))
    }

    fn is_full(&self) -> bool {
        self.calls >= self.capacity
    }
}

/// In the order in which they are to be asked, up to `most`. Those that may not be asked are left out by the caller.
pub fn order(version: VersionKey, workers: &[Candidate], most: usize) -> Vec<WorkerId> {
    let mut ranked: Vec<(bool, u64, &Candidate)> =
        workers.iter().map(|one| (one.is_full(), u64::MAX - score(version, one.worker), one)).collect();
    // Highest score first; full ones behind all others, in the same order.
    ranked.sort_unstable_by_key(|(full, rank, one)| (*full, *rank, one.worker));
    if let [(a_full, _, a), (b_full, _, b), ..] = ranked[..]
        && a_full == b_full
        && b.load() < a.load()
    {
        ranked.swap(0, 1);
    }
    ranked.into_iter().take(most).map(|(_, _, one)| one.worker).collect()
}

/// The `most` workers of highest rank, the highest first: whoever is not among them is asked after all of these, unless they are full.
/// It depends on nothing but who there is, so it may be kept until somebody comes or goes.
pub fn shortlist(version: VersionKey, workers: impl Iterator<Item = WorkerId>, most: usize) -> Vec<WorkerId> {
    let mut ranked: Vec<(u64, WorkerId)> = workers.map(|worker| (u64::MAX - score(version, worker), worker)).collect();
    if ranked.len() > most {
        ranked.select_nth_unstable(most);
        ranked.truncate(most);
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, worker)| worker).collect()
}

/// What [`order`] says of all workers, told from those on the version's shortlist that may be asked; `None`: these don't suffice to tell.
pub fn order_short(version: VersionKey, open: &[Candidate], most: usize) -> Option<Vec<WorkerId>> {
    // The first two are compared by load, whoever is asked for.
    let places = open.iter().filter(|one| !one.is_full()).count();
    (places >= most.max(2)).then(|| order(version, open, most))
}

/// Spread evenly over both. Every node must come to the same, so it depends on nothing of this process.
fn score(version: VersionKey, worker: WorkerId) -> u64 {
    let (function, worker) = (version.function.0.as_u128(), worker.0.as_u128());
    [function as u64, (function >> 64) as u64, u64::from(version.number), worker as u64, (worker >> 64) as u64]
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |hash, word| mixed(hash ^ word))
}

fn mixed(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FunctionId;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use uuid::Uuid;

    fn version(n: u128) -> VersionKey {
        VersionKey { function: FunctionId(Uuid::from_u128(n)), number: 1 }
    }

    fn idle(n: u128) -> Candidate {
        Candidate { worker: WorkerId(Uuid::from_u128(n)), calls: 0, capacity: 8 }
    }

    #[test]
    fn nobody_to_ask_is_no_panic() {
        assert!(order(version(1), &[], 3).is_empty());
        assert_eq!(order(version(1), &[idle(1)], 3), [idle(1).worker]);
    }

    #[test]
    fn the_less_loaded_of_two_comes_first_and_full_ones_last() {
        let workers: Vec<_> = (0..5).map(idle).collect();
        let by_hash = order(version(1), &workers, 5);
        let with = |worker: WorkerId, calls: u32| -> Vec<Candidate> {
            workers
                .iter()
                .map(|one| Candidate { calls: if one.worker == worker { calls } else { 0 }, ..*one })
                .collect()
        };
        let busier = order(version(1), &with(by_hash[0], 3), 5);
        assert_eq!((busier[0], busier[1]), (by_hash[1], by_hash[0]));
        assert_eq!(busier[2..], by_hash[2..]);
        let full = order(version(1), &with(by_hash[0], 8), 5);
        assert_eq!(full[..4], by_hash[1..]);
        assert_eq!(full[4], by_hash[0]);
    }

    #[test]
    fn versions_spread_over_workers() {
        let workers: Vec<_> = (0..10).map(idle).collect();
        let mut first: HashMap<WorkerId, u32> = HashMap::new();
        for n in 0..10_000 {
            *first.entry(order(version(n), &workers, 1)[0]).or_default() += 1;
        }
        assert!(first.len() == 10 && first.values().all(|n| (850..1150).contains(n)), "{first:?}");
    }

    proptest! {
        /// A worker that leaves moves nobody else's calls.
        #[test]
        fn who_stays_keeps_its_order(n in any::<u128>(), ids in prop::collection::btree_set(any::<u128>(), 2..20)) {
            let workers: Vec<_> = ids.into_iter().map(idle).collect();
            let all = order(version(n), &workers, usize::MAX);
            let rest: Vec<_> = workers.iter().filter(|one| one.worker != all[0]).copied().collect();
            prop_assert_eq!(&order(version(n), &rest, usize::MAX)[..], &all[1..]);
        }

        /// Where a shortlist can tell, it tells the same as all workers.
        #[test]
        fn a_shortlist_orders_as_all_do(
            n in any::<u128>(),
            workers in prop::collection::btree_map(any::<u128>(), (0..10_u32, any::<bool>()), 1..40),
            (short, most) in (1..12_usize, 1..6_usize),
        ) {
            let ids = workers.keys().map(|id| idle(*id).worker);
            let short = shortlist(version(n), ids, short);
            let open = |id: &u128| -> Option<Candidate> {
                let (calls, may) = workers[id];
                may.then_some(Candidate { calls, ..idle(*id) })
            };
            let all: Vec<_> = workers.keys().filter_map(open).collect();
            let listed: Vec<_> = short.iter().filter_map(|worker| open(&worker.0.as_u128())).collect();
            if let Some(told) = order_short(version(n), &listed, most) {
                prop_assert_eq!(told, order(version(n), &all, most));
            }
        }
    }
}
