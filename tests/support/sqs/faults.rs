//! Failures on purpose: a share of the requests is refused, throttled, or not answered for a while. The same seed decides the same.

use std::time::Duration;

use serde::Deserialize;

/// Shares of all requests, from 0 to 1.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Faults {
    pub seed: u64,
    /// Answered 500; half of them after what was asked for was done.
    pub failing: f64,
    /// Answered with a throttling error, before anything was done.
    pub throttled: f64,
    /// Answered after `stall_ms`; half of them after what was asked for was done.
    pub stalled: f64,
    pub stall_ms: u64,
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

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn draw(&mut self) -> Option<Fault> {
        let faults = self.faults.clone();
        if faults.failing + faults.throttled + faults.stalled <= 0.0 {
            return None;
        }
        let done = self.next() & 1 == 1;
        let drawn = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        if drawn < faults.failing {
            return Some(Fault::Fail { done });
        }
        if drawn < faults.failing + faults.throttled {
            return Some(Fault::Throttle);
        }
        let time = Duration::from_millis(faults.stall_ms);
        (drawn < faults.failing + faults.throttled + faults.stalled).then_some(Fault::Stall { done, time })
    }
}
