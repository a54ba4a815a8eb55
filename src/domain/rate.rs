//! A token bucket: how many calls one identity may make, and when the next.

pub mod purse;

use std::time::Duration;

/// One token in the bucket's own unit, fine enough for a rate of one a second asked a thousand times a second.
const TOKEN: u64 = 1_000_000;

/// The terms that every bucket of a limiter follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second; at least 1.
    pub per_second: u32,
    /// Tokens of a bucket that was left alone; at least 1.
    pub burst: u32,
}

/// The answer to one request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub allowed: bool,
    /// Whole tokens left after this one.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub full_in: Duration,
    /// Until the next token is there; zero where one is left.
    pub next_in: Duration,
}

/// Tokens taken out of a bucket that several draw from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// At most as many as were wanted.
    pub tokens: u32,
    /// Whole tokens left in the bucket after these.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub full_in: Duration,
    /// Until the next token is there; zero where one is left.
    pub next_in: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// In millionths of a token.
    level: u64,
    /// When `level` was right, on a monotonic clock.
    at: Duration,
}

impl TokenBucket {
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { level: capacity(rate), at: now }
    }

    /// Takes one token if there is one. A clock that went back adds nothing.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Grant {
        let Drawn { tokens, remaining, full_in, next_in } = self.draw(rate, now, 1);
        Grant { allowed: tokens == 1, remaining, full_in, next_in }
    }

    /// Takes up to `want` tokens, as many as there are.
    pub fn draw(&mut self, rate: Rate, now: Duration, want: u32) -> Drawn {
        self.refill(rate, now);
        let tokens = (self.level / TOKEN).min(u64::from(want));
        self.level -= tokens * TOKEN;
        Drawn {
            tokens: tokens as u32,
            remaining: (self.level / TOKEN) as u32,
            full_in: time_for(capacity(rate) - self.level, rate),
            next_in: time_for(TOKEN.saturating_sub(self.level), rate),
        }
    }

    /// Whether forgetting this bucket would change nothing.
    pub fn is_full(&mut self, rate: Rate, now: Duration) -> bool {
        self.refill(rate, now);
        self.level == capacity(rate)
    }

    fn refill(&mut self, rate: Rate, now: Duration) {
        let passed_us = now.saturating_sub(self.at).as_micros() as u64;
        // A token is a million units and a second a million microseconds: one unit a microsecond for each token a second.
        self.level = self.level.saturating_add(passed_us.saturating_mul(per_second(rate))).min(capacity(rate));
        self.at = self.at.max(now);
    }
}

fn per_second(rate: Rate) -> u64 {
    u64::from(rate.per_second.max(1))
}

fn capacity(rate: Rate) -> u64 {
    u64::from(rate.burst.max(1)) * TOKEN
}

fn time_for(units: u64, rate: Rate) -> Duration {
    Duration::from_micros(units.div_ceil(per_second(rate)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = TokenBucket::full(RATE, Duration::ZERO);
        for left in [2, 1, 0] {
            let grant = bucket.take(RATE, Duration::ZERO);
            assert!(grant.allowed);
            assert_eq!(grant.remaining, left);
        }
        let refused = bucket.take(RATE, Duration::ZERO);
        assert!(!refused.allowed);
        assert_eq!(refused.next_in, Duration::from_millis(500));
        assert_eq!(refused.full_in, Duration::from_millis(1500));
        assert!(bucket.take(RATE, Duration::from_millis(500)).allowed);
        assert!(!bucket.take(RATE, Duration::from_millis(999)).allowed);
        assert!(bucket.is_full(RATE, Duration::from_secs(9)));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            per_second in 1u32..1000, burst in 1u32..1000, gaps in prop::collection::vec(0u64..50_000, 1..300),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = TokenBucket::full(rate, Duration::ZERO);
            let (mut now, mut passed) = (Duration::ZERO, 0u64);
            for gap in gaps {
                now += Duration::from_micros(gap);
                let grant = bucket.take(rate, now);
                passed += u64::from(grant.allowed);
                prop_assert!(grant.remaining <= burst);
                if !grant.allowed {
                    prop_assert!(bucket.take(rate, now + grant.next_in).allowed);
                    passed += 1;
                    now += grant.next_in;
                }
            }
            let allowed = u64::from(burst) + (now.as_micros() as u64 * u64::from(per_second)).div_ceil(TOKEN);
            prop_assert!(passed <= allowed);
        }
    }
}
