//! Failures on purpose, for servers that stand in for AWS: a share of the requests is refused, throttled, or not answered for a
//! while. The same seed decides the same for the same sequence of requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shares of all requests, from 0 to 1.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Faults {
    pub seed: u64,
    /// Answered 500; half of them after what was asked for was done.
    pub failing: f64,
    /// Answered with a throttling error, before anything was done.
    pub throttled: f64,
    /// Answered after `stall_ms`; half of them after what was asked for was done, the others before.
    pub stalled: f64,
    pub stall_ms: u64,
    /// Of a batch's entries, those handed back as unprocessed.
    pub unprocessed: f64,
    /// Of the transactions that write, those cancelled as in conflict with another.
    pub conflicting: f64,
    /// How long a global secondary index is behind its table.
    pub index_lag_ms: u64,
    /// How long a new table is being created.
    pub creating_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Fail { done: bool },
    Throttle,
    Stall { done: bool, time: Duration },
}

/// Draws by SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Default)]
pub struct Generator {
    faults: Faults,
    state: u64,
}

impl Generator {
    pub fn new(faults: Faults) -> Self {
        let state = faults.seed;
        Self { faults, state }
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What happens to a request.
    pub fn draw(&mut self) -> Option<Fault> {
        let Faults { failing, throttled, stalled, stall_ms, .. } = self.faults;
        if failing + throttled + stalled <= 0.0 {
            return None;
        }
        let done = self.next() & 1 == 1;
        let drawn = self.share();
        if drawn < failing {
            return Some(Fault::Fail { done });
        }
        if drawn < failing + throttled {
            return Some(Fault::Throttle);
        }
        let time = Duration::from_millis(stall_ms);
        (drawn < failing + throttled + stalled).then_some(Fault::Stall { done, time })
    }

    /// Whether an entry of a batch is left undone.
    pub fn leaves_entry(&mut self) -> bool {
        let share = self.faults.unprocessed;
        share > 0.0 && self.share() < share
    }

    /// Whether a transaction is cancelled.
    pub fn cancels(&mut self) -> bool {
        let share = self.faults.conflicting;
        share > 0.0 && self.share() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_and_shares_are_kept() {
        let faults = Faults { seed: 7, failing: 0.1, throttled: 0.1, stalled: 0.1, stall_ms: 5, ..Faults::default() };
        let drawn = |faults: &Faults| {
            let mut generator = Generator::new(faults.clone());
            (0..10_000).map(|_| generator.draw()).collect::<Vec<_>>()
        };
        let first = drawn(&faults);
        assert_eq!(first, drawn(&faults));
        assert_ne!(first, drawn(&Faults { seed: 8, ..faults }));
        let count = |wanted: fn(&Fault) -> bool| first.iter().flatten().filter(|fault| wanted(fault)).count();
        for counted in [
            count(|fault| matches!(fault, Fault::Fail { .. })),
            count(|fault| matches!(fault, Fault::Throttle)),
            count(|fault| matches!(fault, Fault::Stall { .. })),
        ] {
            assert!((800..1200).contains(&counted), "{counted}");
        }
        assert!(drawn(&Faults::default()).iter().all(Option::is_none));
    }
}
