//! Tokens that one node has drawn from a bucket it shares with others, several at once, so that most calls ask nobody. Pure: time is handed in.
//!
//! ```text
//! spend ──▶ Granted      a token was in hand; `Draw` too when few are left
//!       ──▶ Refused      the bucket was empty at the last draw, and has nothing new yet
//!       ──▶ Draw         ask the bucket, put in what it gives, spend again
//! ```
//!
//! What is not spent within a moment is worth nothing: a node that draws and has no calls would keep tokens from the others for ever.

use std::time::Duration;

use super::{Drawn, Grant, Rate};

/// Tokens in hand are good for so long.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What spending a token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// There was one. `draw`, where it is not 0, is how many to draw meanwhile, so that the next ones don't wait.
    Granted { grant: Grant, draw: u32 },
    /// There is none before `grant.next_in`.
    Refused(Grant),
    /// Draw so many, then try again.
    Draw(u32),
}

/// Starts empty.
#[derive(Clone, Debug, Default)]
pub struct Purse {
    tokens: u32,
    good_until: Duration,
    /// In the bucket after the last draw.
    left: u32,
    drawn_at: Duration,
    /// The bucket has no token before.
    empty_until: Duration,
}

/// Tokens drawn at once: a tenth of a second's, and never so many that a few nodes hold most of a burst.
fn batch(rate: Rate) -> u32 {
    (rate.per_second / 10).min(rate.burst / 8).max(1)
}

impl Purse {
    /// Spends one token.
    pub fn spend(&mut self, rate: Rate, now: Duration) -> Spent {
        if now >= self.good_until {
            self.tokens = 0;
        }
        if self.tokens == 0 {
            if now < self.empty_until {
                return Spent::Refused(Grant {
                    allowed: false,
                    next_in: self.empty_until - now,
                    ..self.grant(rate, now)
                });
            }
            return Spent::Draw(batch(rate));
        }
        self.tokens -= 1;
        // One by one there is nothing to gain: what is drawn ahead of a call that does not come is lost.
        let is_low = batch(rate) > 1 && self.tokens <= batch(rate) / 2 && now >= self.empty_until;
        Spent::Granted { grant: self.grant(rate, now), draw: if is_low { batch(rate) } else { 0 } }
    }

    /// Puts in what the bucket gave.
    pub fn put(&mut self, drawn: Drawn, now: Duration) {
        if now >= self.good_until {
            self.tokens = 0;
        }
        self.tokens = self.tokens.saturating_add(drawn.tokens);
        self.good_until = now + GOOD_FOR;
        (self.left, self.drawn_at) = (drawn.remaining, now);
        self.empty_until = if drawn.remaining == 0 { now + drawn.next_in } else { Duration::ZERO };
    }

    /// Whether forgetting this purse would change nothing.
    pub fn is_idle(&self, now: Duration) -> bool {
        now >= self.good_until && now >= self.empty_until
    }

    /// Where the caller stands, as far as this node knows: others draw too.
    fn grant(&self, rate: Rate, now: Duration) -> Grant {
        let per_second = u64::from(rate.per_second.max(1));
        let back = now.saturating_sub(self.drawn_at).as_micros() as u64 * per_second / 1_000_000;
        let there = u64::from(self.left).saturating_add(back).saturating_add(u64::from(self.tokens));
        let there = there.min(u64::from(rate.burst));
        let missing = u64::from(rate.burst) - there;
        Grant {
            allowed: true,
            remaining: there as u32,
            full_in: Duration::from_micros((missing * 1_000_000).div_ceil(per_second)),
            next_in: if there > 0 { Duration::ZERO } else { Duration::from_micros(1_000_000u64.div_ceil(per_second)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rate::TokenBucket;
    use proptest::prelude::*;

    const RATE: Rate = Rate { per_second: 50, burst: 3000 };
    const NOW: Duration = Duration::from_secs(9);

    fn drawn(tokens: u32, remaining: u32) -> Drawn {
        Drawn { tokens, remaining, full_in: Duration::ZERO, next_in: Duration::from_millis(20) }
    }

    #[test]
    fn most_calls_ask_nobody_and_few_left_ask_for_more() {
        let mut purse = Purse::default();
        assert_eq!(purse.spend(RATE, NOW), Spent::Draw(5));
        purse.put(drawn(5, 2995), NOW);
        let draws: Vec<u32> = (0..5)
            .map(|_| match purse.spend(RATE, NOW) {
                Spent::Granted { draw, .. } => draw,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(draws, [0, 0, 5, 5, 5]);
        assert_eq!(purse.spend(RATE, NOW), Spent::Draw(5));
    }

    #[test]
    fn an_empty_bucket_is_not_asked_before_it_has_something() {
        let mut purse = Purse::default();
        purse.put(drawn(1, 0), NOW);
        assert!(matches!(purse.spend(RATE, NOW), Spent::Granted { draw: 0, .. }));
        let Spent::Refused(grant) = purse.spend(RATE, NOW) else { panic!("no token is left") };
        assert_eq!((grant.allowed, grant.remaining, grant.next_in), (false, 0, Duration::from_millis(20)));
        assert_eq!(purse.spend(RATE, NOW + Duration::from_millis(20)), Spent::Draw(5));
    }

    #[test]
    fn what_is_not_spent_is_lost() {
        let mut purse = Purse::default();
        purse.put(drawn(5, 100), NOW);
        assert!(!purse.is_idle(NOW));
        assert_eq!(purse.spend(RATE, NOW + GOOD_FOR), Spent::Draw(5));
        assert!(purse.is_idle(NOW + GOOD_FOR));
    }

    #[test]
    fn the_caller_is_told_where_it_stands() {
        let mut purse = Purse::default();
        purse.put(drawn(5, 2995), NOW);
        let Spent::Granted { grant, .. } = purse.spend(RATE, NOW) else { panic!("a token is there") };
        assert_eq!((grant.remaining, grant.full_in), (2999, Duration::from_millis(20)));
        let Spent::Granted { grant, .. } = purse.spend(RATE, NOW + Duration::from_millis(20)) else {
            panic!("another")
        };
        assert_eq!(grant.remaining, 2999, "one came back");
    }

    proptest! {
        /// Nodes that draw ahead, at any pace: never more than burst and rate allow, and somebody who waits as told is served.
        #[test]
        fn together_never_more_than_burst_and_rate_allow(
            per_second in 1u32..500, burst in 1u32..500, calls in prop::collection::vec((0usize..3, 0u64..100_000), 1..300),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = TokenBucket::full(rate, Duration::ZERO);
            let mut purses = [Purse::default(), Purse::default(), Purse::default()];
            let (mut now, mut granted) = (Duration::ZERO, 0u64);
            for (node, gap) in calls {
                now += Duration::from_micros(gap);
                let purse = &mut purses[node];
                let mut spent = purse.spend(rate, now);
                if let Spent::Draw(want) = spent {
                    purse.put(bucket.draw(rate, now, want), now);
                    spent = purse.spend(rate, now);
                }
                match spent {
                    Spent::Granted { draw, grant } => {
                        granted += 1;
                        prop_assert!(grant.remaining <= burst);
                        if draw > 0 {
                            purse.put(bucket.draw(rate, now, draw), now);
                        }
                    }
                    Spent::Refused(grant) => {
                        let drawn = bucket.draw(rate, now + grant.next_in, 1);
                        prop_assert_eq!(drawn.tokens, 1, "a token is there when it was said to be");
                        now += grant.next_in;
                    }
                    Spent::Draw(_) => prop_assert!(false, "a draw says what there is"),
                }
            }
            let allowed = u64::from(burst) + (now.as_micros() as u64 * u64::from(per_second)).div_ceil(1_000_000);
            prop_assert!(granted <= allowed, "{} of {}", granted, allowed);
        }
    }
}
