//! A token bucket: so many a second, and so many at once after silence.

use std::time::Duration;

/// One caller's bucket. Counts in whole parts of a token, so that nothing is lost to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Parts a nanosecond.
    rate: u128,
    /// Parts.
    burst: u128,
    parts: u128,
    filled_at: Duration,
}

/// Parts of a token: what one a second brings in an hour's nanoseconds, so that one an hour is a part a nanosecond.
const TOKEN: u128 = 3_600 * 1_000_000_000;
const PER_SECOND: u128 = 3_600;

/// A token was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
}

/// None was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Until there is one.
    pub retry_after: Duration,
    /// Until the bucket is full again.
    pub reset: Duration,
}

impl TokenBucket {
    /// A full bucket. `rate` is tokens a second, 0 counts as one an hour; `burst` the most it holds, at least one.
    pub fn new(rate: u32, burst: u32, now: Duration) -> Self {
        let burst = u128::from(burst.max(1)) * TOKEN;
        let rate = (u128::from(rate) * PER_SECOND).max(1);
        Self { rate, burst, parts: burst, filled_at: now }
    }

    /// Takes one token. `now` is monotonic time.
    pub fn take(&mut self, now: Duration) -> Result<Granted, Denied> {
        self.parts = self.parts_at(now);
        self.filled_at = self.filled_at.max(now);
        if self.parts >= TOKEN {
            self.parts -= TOKEN;
            // At most `burst`, which came as a u32.
            return Ok(Granted { remaining: (self.parts / TOKEN) as u32, reset: self.until(self.burst) });
        }
        Err(Denied { retry_after: self.until(TOKEN), reset: self.until(self.burst) })
    }

    /// Whether it holds all it can: such a bucket may be forgotten and made anew.
    pub fn is_full(&self, now: Duration) -> bool {
        self.parts_at(now) == self.burst
    }

    fn parts_at(&self, now: Duration) -> u128 {
        let passed = now.saturating_sub(self.filled_at).as_nanos();
        self.parts.saturating_add(self.rate.saturating_mul(passed)).min(self.burst)
    }

    /// Rounded up, so that whoever waits that long finds what was promised.
    fn until(&self, parts: u128) -> Duration {
        let nanos = parts.saturating_sub(self.parts).div_ceil(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 3, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO), Ok(Granted { remaining: 2, reset: SECOND / 10 }));
        assert!(bucket.take(Duration::ZERO).is_ok());
        assert!(bucket.take(Duration::ZERO).is_ok());
        let denied = bucket.take(Duration::ZERO).unwrap_err();
        assert_eq!((denied.retry_after, denied.reset), (SECOND / 10, SECOND * 3 / 10));
        assert!(bucket.take(denied.retry_after).is_ok());
        assert!(bucket.take(denied.retry_after).is_err());
        assert!(!bucket.is_full(SECOND / 5));
        assert!(bucket.is_full(SECOND));
    }

    #[test]
    fn time_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1, SECOND * 10);
        assert!(bucket.take(SECOND * 10).is_ok());
        assert!(bucket.take(SECOND).is_err());
        assert!(bucket.take(SECOND * 11).is_ok());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 1u32..1000, burst in 1u32..100, steps in proptest::collection::vec(0u64..100_000, 1..300)
        ) {
            let mut bucket = TokenBucket::new(rate, burst, Duration::ZERO);
            let (mut now, mut granted) = (Duration::ZERO, 0u32);
            for step in steps {
                now += Duration::from_micros(step);
                match bucket.take(now) {
                    Ok(_) => granted += 1,
                    Err(denied) => {
                        let mut later = bucket;
                        prop_assert!(later.take(now + denied.retry_after).is_ok());
                    }
                }
            }
            let allowed = f64::from(burst) + f64::from(rate) * now.as_secs_f64();
            prop_assert!(f64::from(granted) <= allowed + 1e-3);
        }
    }
}
