//! How often an address got its credential wrong lately. Bounded: what it forgets first is what counts least.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::rate::{Rate, TokenBucket};

use super::addresses::Neighbourhood;

/// Failures are counted over so long.
const WINDOW: Duration = Duration::from_secs(60);
const SHARDS: usize = 16;
/// Addresses a shard. An attacker with more of them is held by [`LOOKS`] alone.
const ADDRESSES_PER_SHARD: usize = 1024;
/// Unknown credentials that all addresses over their bound together may have looked up, so that a good key behind the same
/// address is still found; beyond it nothing is looked up.
const LOOKS: Rate = Rate { per_second: 100, burst: 200 };

#[derive(Clone, Copy)]
struct Count {
    since: Duration,
    failures: u32,
}

impl Count {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= WINDOW
    }
}

pub struct Failures {
    /// 0: no bound.
    max: u32,
    shards: [Mutex<HashMap<Neighbourhood, Count>>; SHARDS],
    looks: Mutex<TokenBucket>,
}

impl Failures {
    pub fn new(max: u32) -> Self {
        let looks = Mutex::new(TokenBucket::full(LOOKS, Duration::ZERO));
        Self { max, shards: std::array::from_fn(|_| Mutex::default()), looks }
    }

    /// How long unknown credentials from there are refused, if they are.
    pub fn refused_for(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        if self.max == 0 {
            return None;
        }
        let address = Neighbourhood::of(address);
        let count = self.shard(address).get(&address).copied()?;
        let over = count.failures >= self.max && !count.is_over(now);
        over.then(|| (count.since + WINDOW).saturating_sub(now))
    }

    /// Whether a credential from a refused address may be looked up all the same.
    pub fn may_look(&self, now: Duration) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).take(LOOKS, now).allowed
    }

    pub fn count(&self, address: IpAddr, now: Duration) {
        if self.max == 0 {
            return;
        }
        let address = Neighbourhood::of(address);
        let mut shard = self.shard(address);
        if shard.len() >= ADDRESSES_PER_SHARD && !shard.contains_key(&address) {
            make_room(&mut shard, now);
        }
        let count = shard.entry(address).or_insert(Count { since: now, failures: 0 });
        if count.is_over(now) {
            *count = Count { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
    }

    fn shard(&self, address: Neighbourhood) -> MutexGuard<'_, HashMap<Neighbourhood, Count>> {
        self.shards[address.spread() % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those whose time is over go; else the one with the fewest failures, so that a flood of fresh addresses frees no old offender.
fn make_room(counts: &mut HashMap<Neighbourhood, Count>, now: Duration) {
    counts.retain(|_, count| !count.is_over(now));
    if counts.len() >= ADDRESSES_PER_SHARD
        && let Some(least) = counts.iter().min_by_key(|(_, count)| count.failures).map(|(address, _)| *address)
    {
        counts.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_is_refused_after_its_failures_until_the_minute_is_over() {
        let failures = Failures::new(3);
        for _ in 0..2 {
            failures.count(address(1), s(10));
        }
        assert_eq!(failures.refused_for(address(1), s(10)), None);
        failures.count(address(1), s(20));
        assert_eq!(failures.refused_for(address(1), s(20)), Some(s(50)));
        assert_eq!(failures.refused_for(address(2), s(20)), None);
        assert_eq!(failures.refused_for(address(1), s(70)), None);
        failures.count(address(1), s(70));
        assert_eq!(failures.refused_for(address(1), s(70)), None);
    }

    #[test]
    fn no_bound_is_no_bound() {
        let failures = Failures::new(0);
        (0..100).for_each(|_| failures.count(address(1), s(1)));
        assert_eq!(failures.refused_for(address(1), s(1)), None);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_frees_no_offender() {
        let failures = Failures::new(2);
        (0..5).for_each(|_| failures.count(address(7), s(1)));
        (100..200_000).for_each(|n| failures.count(address(n), s(2)));
        let kept: usize = failures.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * ADDRESSES_PER_SHARD, "{kept} addresses");
        assert!(failures.refused_for(address(7), s(3)).is_some());
    }

    #[test]
    fn looks_for_refused_addresses_are_bounded() {
        let failures = Failures::new(1);
        let looks = (0..1000).filter(|_| failures.may_look(s(5))).count();
        assert_eq!(looks, LOOKS.burst as usize);
    }
}
