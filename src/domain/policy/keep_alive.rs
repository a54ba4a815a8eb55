//! For how long a function that is not called keeps its sandboxes, and when one is made ready ahead of its next call.
//!
//! ```text
//!   last call ends                                                        next call
//!        │◄──────────── keep ─────────────►│ let go                           │
//!        │  or, where no call comes before `from`:                            │
//!        │◄ LINGER ►│ let go      specialised ahead │◄── until − from ──────────────►│ let go
//!        0                                      from                              until
//! ```
//!
//! The windows are those of the hybrid histogram policy (see `policy::idle`): from the 5th percentile of its pauses to the
//! 99th, with a margin. A function of which too little is known, or whose pauses have no pattern, keeps them for a standard time;
//! none keeps them for less, but those that come back ahead of their call. The numbers below were chosen by `make simulate`
//! (docs/policies.md).

use std::time::Duration;

use super::idle::{IdleTimes, RANGE};

/// Pauses noted before they count for anything: a developer's first calls find what a fixed keep-alive would give them.
const NOTED_MIN: u32 = 10;
/// Square of the variation that the bins must have to mean anything; the paper's threshold is 2.
const VARIATION_SQUARED_MIN: f64 = 4.0;
const HEAD_PERCENT: u32 = 5;
const TAIL_PERCENT: u32 = 99;
/// Each window begins so much earlier and ends so much later than was seen.
const MARGIN_PERCENT: u32 = 10;
/// Where less than this is saved, letting go costs more than it brings: a start is work too.
const AWAY_MIN: Duration = Duration::from_secs(300);
/// Before letting go of a function that is predicted to stay away: calls like company.
const LINGER: Duration = Duration::from_secs(60);

/// Beyond the one that was used last, sandboxes of a function are kept for so many halves of the standard time.
const SURPLUS_HALVES: u32 = 3;

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The same for all.
    Fixed(Duration),
    /// By each function's own pauses.
    Adaptive {
        /// While nothing is known of them.
        standard: Duration,
        most: Duration,
    },
}

/// What to do with a function that is not called, all counted from the end of its last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub keep: Duration,
    pub ahead: Option<Ahead>,
}

/// When its next call is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    pub from: Duration,
    pub until: Duration,
}

impl KeepAlive {
    /// Of functions that nothing is known of.
    pub fn standard(&self) -> Duration {
        match *self {
            KeepAlive::Fixed(keep) => keep,
            KeepAlive::Adaptive { standard, most } => standard.min(most),
        }
    }

    /// Of a function's sandboxes beyond the one that was used last: what they wait for is a burst.
    pub fn surplus(&self) -> Duration {
        match *self {
            KeepAlive::Fixed(keep) => keep,
            KeepAlive::Adaptive { standard, most } => (standard * SURPLUS_HALVES / 2).min(most),
        }
    }

    pub fn is_adaptive(&self) -> bool {
        matches!(self, KeepAlive::Adaptive { .. })
    }

    pub fn plan(&self, idle: &IdleTimes) -> Plan {
        let standard = Plan { keep: self.standard(), ahead: None };
        let KeepAlive::Adaptive { most, .. } = *self else { return standard };
        let telling =
            idle.noted() >= NOTED_MIN && idle.is_mostly_within() && idle.variation_squared() >= VARIATION_SQUARED_MIN;
        if !telling {
            return standard;
        }
        let from = idle.at_least(HEAD_PERCENT) * (100 - MARGIN_PERCENT) / 100;
        let until = (idle.at_most(TAIL_PERCENT) * (100 + MARGIN_PERCENT) / 100).min(RANGE);
        if from >= AWAY_MIN {
            return Plan { keep: LINGER, ahead: Some(Ahead { from, until: until.min(from + most) }) };
        }
        // Never less than what a fixed one would give.
        Plan { keep: until.min(most).max(standard.keep), ahead: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: KeepAlive = KeepAlive::Adaptive { standard: minutes(10), most: minutes(240) };

    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn plan_of(pauses: impl IntoIterator<Item = u64>) -> Plan {
        let mut idle = IdleTimes::default();
        pauses.into_iter().for_each(|n| idle.note(minutes(n)));
        ADAPTIVE.plan(&idle)
    }

    const STANDARD: Plan = Plan { keep: minutes(10), ahead: None };

    #[test]
    fn little_knowledge_keeps_the_standard() {
        assert_eq!(plan_of([]), STANDARD);
        assert_eq!(plan_of([30; 9]), STANDARD);
        assert_ne!(plan_of([30; 10]), STANDARD);
    }

    #[test]
    fn pauses_beyond_the_range_or_without_a_pattern_keep_the_standard() {
        assert_eq!(plan_of([1000; 50]), STANDARD);
        assert_eq!(plan_of((0..240).cycle().take(960)), STANDARD);
    }

    #[test]
    fn pauses_beyond_the_standard_are_kept_through() {
        assert_eq!(
            plan_of([0, 30].into_iter().cycle().take(20)),
            Plan { keep: Duration::from_secs(31 * 66), ahead: None }
        );
    }

    #[test]
    fn nobody_is_kept_for_less_than_the_standard() {
        assert_eq!(plan_of([0; 20]), STANDARD);
        assert_eq!(plan_of([4; 20]), STANDARD);
    }

    #[test]
    fn a_long_pattern_lets_go_and_makes_ready_ahead() {
        let ahead = Ahead { from: minutes(27), until: Duration::from_secs(31 * 66) };
        assert_eq!(plan_of([30; 20]), Plan { keep: LINGER, ahead: Some(ahead) });
    }

    #[test]
    fn the_most_is_never_passed() {
        let tight = KeepAlive::Adaptive { standard: minutes(10), most: minutes(4) };
        let mut idle = IdleTimes::default();
        (0..20).for_each(|n| idle.note(minutes(n)));
        assert_eq!(tight.plan(&idle), Plan { keep: minutes(4), ahead: None });
        assert_eq!(tight.standard(), minutes(4));
    }

    #[test]
    fn a_fixed_one_knows_nothing_of_pauses() {
        let mut idle = IdleTimes::default();
        (0..20).for_each(|_| idle.note(minutes(30)));
        assert_eq!(KeepAlive::Fixed(minutes(20)).plan(&idle), Plan { keep: minutes(20), ahead: None });
    }
}
