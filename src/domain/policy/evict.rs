//! Which idle sandbox gives way when another version needs its room.
//!
//! Greedy-dual-size-frequency, as Fuerst and Sharma propose for functions in "FaasCache" (ASPLOS 2021): what is called often, is slow
//! to make and small stays. `priority = clock + frequency × cost ÷ size`, where the clock is that of its last call; the clock moves up to
//! the priority of each that is evicted, so that what is not called any more sinks, however dear it was.

use std::time::Duration;

use crate::domain::ids::{SandboxId, VersionKey};

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    LongestIdle,
    GreedyDual,
}

/// Longest idle ones that are looked at: one eviction must not cost a walk over thousands.
const LOOK_MAX: usize = 256;
/// Calls that count as frequency: beyond it a function is frequent, and one that ends must not outlive all others for that.
const USES_MAX: u32 = 1000;

/// An idle sandbox that may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub sandbox: SandboxId,
    pub version: VersionKey,
    pub idle_since: Duration,
    pub memory_mb: u64,
    /// The clock when its last call ended.
    pub clock: u64,
    /// Calls of its version, since it had no sandbox.
    pub uses: u32,
    /// What it takes to make another.
    pub cost: Duration,
}

impl Candidate {
    /// In microseconds a megabyte, on top of the clock.
    fn priority(&self) -> u64 {
        let uses = u64::from(self.uses.min(USES_MAX));
        let cost_us = u64::try_from(self.cost.as_micros()).unwrap_or(u64::MAX);
        self.clock.saturating_add(uses.saturating_mul(cost_us) / self.memory_mb.max(1))
    }
}

/// Who goes, and where the clock stands then. `candidates` come with the longest idle first.
pub fn choose(rule: Eviction, candidates: impl Iterator<Item = Candidate>) -> Option<(SandboxId, u64)> {
    let look_max = match rule {
        Eviction::LongestIdle => 1,
        Eviction::GreedyDual => LOOK_MAX,
    };
    // The first of equals: the longest idle.
    let least = candidates.take(look_max).min_by_key(Candidate::priority)?;
    Some((least.sandbox, least.priority()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::FunctionId;

    fn candidate(n: u64, uses: u32, cost_ms: u64, memory_mb: u64, clock: u64) -> Candidate {
        let version = VersionKey { function: FunctionId(Uuid::from_u128(n.into())), number: 1 };
        let cost = Duration::from_millis(cost_ms);
        Candidate { sandbox: SandboxId(n), version, idle_since: Duration::ZERO, memory_mb, clock, uses, cost }
    }

    fn goes(candidates: &[Candidate]) -> u64 {
        choose(Eviction::GreedyDual, candidates.iter().copied()).unwrap().0.0
    }

    #[test]
    fn seldom_called_cheap_and_large_ones_go_first() {
        assert_eq!(goes(&[candidate(1, 9, 100, 128, 0), candidate(2, 3, 100, 128, 0)]), 2);
        assert_eq!(goes(&[candidate(1, 3, 100, 128, 0), candidate(2, 3, 10, 128, 0)]), 2);
        assert_eq!(goes(&[candidate(1, 3, 100, 128, 0), candidate(2, 3, 100, 1024, 0)]), 2);
    }

    #[test]
    fn among_equals_the_longest_idle_goes() {
        assert_eq!(goes(&[candidate(1, 3, 100, 128, 0), candidate(2, 3, 100, 128, 0)]), 1);
    }

    #[test]
    fn what_is_not_called_any_more_sinks_below_what_is() {
        let dear = candidate(1, 100, 100, 128, 0);
        let mut clock = 0;
        let mut evicted = 0;
        // Others, cheap ones, come and go at the clock of their time.
        while goes(&[dear, candidate(2, 1, 100, 128, clock)]) == 2 {
            clock = candidate(2, 1, 100, 128, clock).priority();
            evicted += 1;
            assert!(evicted < 200, "it stays for ever");
        }
        assert!(evicted > 50, "it went after {evicted}");
    }

    #[test]
    fn the_longest_idle_goes_where_that_is_the_rule() {
        let all = [candidate(1, 900, 900, 1, 0), candidate(2, 1, 1, 1000, 0)];
        assert_eq!(choose(Eviction::LongestIdle, all.into_iter()).unwrap().0, SandboxId(1));
    }
}
