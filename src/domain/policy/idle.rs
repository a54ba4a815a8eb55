//! How long a function pauses between its calls, as a histogram: what keep-alive is decided from.
//!
//! After Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020), section 4: bins of a minute over four hours. Beyond the first
//! hour five minutes make a bin here, which the margins of the windows outweigh, so that a function costs 200 bytes.

use std::time::Duration;

const MINUTE_S: u64 = 60;
/// Bins of one minute.
const FINE: usize = 60;
/// Bins of `COARSE_MINUTES` after those.
const COARSE: usize = 36;
const COARSE_MINUTES: usize = 5;
const BINS: usize = FINE + COARSE;
const MINUTES: usize = FINE + COARSE * COARSE_MINUTES;
/// Pauses longer than this are only counted.
pub const RANGE: Duration = Duration::from_secs(MINUTE_S * MINUTES as u64);
/// When so many were noted all counts are halved: what a function did lately weighs more. Of a function that is called all the
/// time a minute gives one, so that this is most of a day.
const NOTED_MAX: u32 = 1024;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleTimes {
    bins: [u16; BINS],
    /// In all bins together.
    within: u32,
    /// Longer than the range.
    beyond: u32,
    /// Of the counts, so that their spread costs no walk over them; see `weight`.
    squares: u32,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self { bins: [0; BINS], within: 0, beyond: 0, squares: 0 }
    }
}

impl IdleTimes {
    /// O(1), but for the halving once in `NOTED_MAX` times.
    pub fn note(&mut self, idle: Duration) {
        match bin_of(idle) {
            Some(bin) => {
                self.squares += weight(bin) * (2 * u32::from(self.bins[bin]) + 1);
                self.bins[bin] += 1;
                self.within += 1;
            }
            None => self.beyond += 1,
        }
        if self.noted() >= NOTED_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.bins.iter_mut().for_each(|count| *count /= 2);
        self.within = self.bins.iter().map(|count| u32::from(*count)).sum();
        self.squares = self.weighed();
        self.beyond /= 2;
    }

    fn weighed(&self) -> u32 {
        self.bins.iter().enumerate().map(|(bin, count)| weight(bin) * u32::from(*count).pow(2)).sum()
    }

    /// Bins that have a count, with it, and how many were longer than the range.
    pub fn counts(&self) -> (Vec<(usize, u16)>, u32) {
        (self.bins.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect(), self.beyond)
    }

    /// The reverse of [`IdleTimes::counts`]; `None`: it can't have come from there.
    pub fn of_counts(counts: &[(usize, u16)], beyond: u32) -> Option<Self> {
        let mut idle = Self { beyond, ..Self::default() };
        for &(bin, count) in counts {
            let place = idle.bins.get_mut(bin).filter(|place| **place == 0)?;
            *place = Some(count).filter(|count| *count > 0 && u32::from(*count) < NOTED_MAX)?;
            idle.within += u32::from(count);
        }
        if idle.within.checked_add(beyond)? >= NOTED_MAX {
            return None;
        }
        idle.squares = idle.weighed();
        Some(idle)
    }

    pub fn noted(&self) -> u32 {
        self.within + self.beyond
    }

    /// Whether most of what was noted lies within the range.
    pub fn is_mostly_within(&self) -> bool {
        self.within > self.beyond
    }

    /// Square of the coefficient of variation of how often each minute was a pause's: 0 where pauses are spread evenly over the
    /// range, large where they have favourites.
    pub fn variation_squared(&self) -> f64 {
        if self.within == 0 {
            return 0.0;
        }
        let squares = f64::from(self.squares) / COARSE_MINUTES as f64;
        MINUTES as f64 * squares / f64::from(self.within).powi(2) - 1.0
    }

    /// So many of a hundred pauses within the range are at least this long: the lower edge of that one's bin.
    pub fn at_least(&self, percentile: u32) -> Duration {
        // One more than those that may be shorter.
        edge(self.bin_at(self.within * percentile / 100 + 1))
    }

    /// So many of a hundred pauses within the range are at most this long: the upper edge of that one's bin.
    pub fn at_most(&self, percentile: u32) -> Duration {
        edge(self.bin_at((self.within * percentile).div_ceil(100)) + 1)
    }

    /// The bin of the pause with this rank, counted from 1 by length.
    fn bin_at(&self, rank: u32) -> usize {
        let mut seen = 0;
        let reaches = |count: &u16| {
            seen += u32::from(*count);
            seen >= rank
        };
        self.bins.iter().position(reaches).unwrap_or(BINS - 1)
    }
}

/// What a bin's square counts for: five minutes that share a bin evenly have a fifth of its square together.
fn weight(bin: usize) -> u32 {
    if bin < FINE { COARSE_MINUTES as u32 } else { 1 }
}

fn bin_of(idle: Duration) -> Option<usize> {
    let minutes = usize::try_from(idle.as_secs() / MINUTE_S).ok()?;
    let bin = if minutes < FINE { minutes } else { FINE + (minutes - FINE) / COARSE_MINUTES };
    (bin < BINS).then_some(bin)
}

/// Where a bin begins.
fn edge(bin: usize) -> Duration {
    let minutes = bin.min(FINE) + bin.saturating_sub(FINE) * COARSE_MINUTES;
    Duration::from_secs(minutes as u64 * MINUTE_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn of(pauses: impl IntoIterator<Item = u64>) -> IdleTimes {
        let mut idle = IdleTimes::default();
        pauses.into_iter().for_each(|n| idle.note(minutes(n)));
        idle
    }

    #[test]
    fn percentiles_are_the_edges_of_their_bins() {
        let idle = of((0..100).map(|n| {
            if n < 5 {
                2
            } else if n < 99 {
                30
            } else {
                62
            }
        }));
        assert_eq!((idle.at_least(5), idle.at_most(5)), (minutes(30), minutes(3)));
        assert_eq!((idle.at_most(99), idle.at_most(100)), (minutes(31), minutes(65)));
    }

    #[test]
    fn the_range_ends_at_four_hours() {
        assert_eq!(RANGE, minutes(240));
        let idle = of([239, 240, 10_000]);
        assert_eq!((idle.noted(), idle.is_mostly_within(), idle.at_most(99)), (3, false, RANGE));
    }

    #[test]
    fn pauses_without_a_favourite_vary_little() {
        assert!(of(0..240).variation_squared().abs() < 1e-9);
        assert!(of([7; 50]).variation_squared() > 200.0);
    }

    #[test]
    fn a_function_costs_two_hundred_bytes() {
        assert!(size_of::<IdleTimes>() <= 208, "{}", size_of::<IdleTimes>());
    }

    proptest! {
        /// Whatever is noted, the counts stay bounded and the sums true.
        #[test]
        fn sums_stay_true(pauses in prop::collection::vec(0u64..20_000, 0..3000)) {
            let mut idle = IdleTimes::default();
            for seconds in pauses {
                idle.note(Duration::from_secs(seconds));
                prop_assert!(idle.noted() < NOTED_MAX);
            }
            prop_assert_eq!(idle.within, idle.bins.iter().map(|n| u32::from(*n)).sum::<u32>());
            prop_assert_eq!(idle.squares, idle.weighed());
            if idle.within > 0 {
                prop_assert!(idle.at_least(5) < idle.at_most(99));
            }
        }
    }
}
