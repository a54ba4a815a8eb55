//! The rate limiter: one token bucket per key, in shards so that callers don't queue for each other. Bounded. Where several controllers share
//! their buckets, tokens are drawn from these ahead of the calls, and the buckets here are for when they don't answer.

mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::config::RateLimit;
use crate::domain::rate::{Grant, Rate, TokenBucket};
use crate::ports::buckets::{Buckets, Identity};
use crate::ports::clock::Clock;

use super::error::{ApiError, Code};
use shared::{Asked, Shared};

const SHARDS: usize = 16;
/// Buckets a shard; keys beyond it push out one that is full again, else any.
const BUCKETS_PER_SHARD: usize = 4096;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

pub struct RateLimiter {
    rate: Rate,
    shards: [Mutex<HashMap<Identity, TokenBucket>>; SHARDS],
    shared: Option<Arc<Shared>>,
}

impl RateLimiter {
    /// `None` where limiting is off. With `buckets` the limits hold over all controllers that have them.
    pub fn new(config: &RateLimit, buckets: Option<Arc<dyn Buckets>>, clock: &Arc<dyn Clock>) -> Option<Self> {
        let rate = Rate { per_second: config.rate, burst: config.burst };
        let shared = buckets.map(|buckets| Arc::new(Shared::new(rate, buckets, clock.clone())));
        config.enabled.then(|| Self { rate, shards: std::array::from_fn(|_| Mutex::default()), shared })
    }

    /// Takes a token. Waits only where buckets are shared and none of the caller's tokens is here: for one draw.
    pub async fn take(&self, identity: &Identity, now: Duration) -> Grant {
        let Some(shared) = &self.shared else { return self.take_here(identity, self.rate, now) };
        match shared.take(identity, now).await {
            Asked::Answered(grant) => grant,
            Asked::Apart(share) => self.take_here(identity, share, now),
        }
    }

    fn take_here(&self, identity: &Identity, rate: Rate, now: Duration) -> Grant {
        let shard = &self.shards[usize::from(identity[0]) % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_PER_SHARD && !buckets.contains_key(identity) {
            make_room(&mut buckets, rate, now);
        }
        buckets.entry(*identity).or_insert_with(|| TokenBucket::full(rate, now)).take(rate, now)
    }

    /// Tells the caller where it stands.
    pub fn write_headers(&self, headers: &mut HeaderMap, grant: Grant) {
        headers.insert(LIMIT, HeaderValue::from(self.rate.burst));
        headers.insert(REMAINING, HeaderValue::from(grant.remaining));
        headers.insert(RESET, HeaderValue::from(grant.full_in.as_millis().div_ceil(1000) as u64));
    }
}

fn make_room(buckets: &mut HashMap<Identity, TokenBucket>, rate: Rate, now: Duration) {
    buckets.retain(|_, bucket| !bucket.is_full(rate, now));
    if buckets.len() >= BUCKETS_PER_SHARD
        && let Some(any) = buckets.keys().next().copied()
    {
        buckets.remove(&any);
    }
}

pub fn refusal(grant: Grant) -> ApiError {
    ApiError::new(Code::TooManyRequests, "this key made too many requests; wait as long as Retry-After says")
        .retry_after(grant.next_in)
}
