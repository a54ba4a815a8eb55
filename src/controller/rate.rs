//! The rate limiter: one token bucket per key, in shards so that callers don't queue for each other. Bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::config::RateLimit;
use crate::domain::rate::{Grant, Rate, TokenBucket};

use super::error::{ApiError, Code};

const SHARDS: usize = 16;
/// Buckets a shard; keys beyond it push out one that is full again, else any.
const BUCKETS_PER_SHARD: usize = 4096;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Who is limited: the SHA-256 of a key's secret, never the secret.
pub type Identity = [u8; 32];

pub struct RateLimiter {
    rate: Rate,
    shards: [Mutex<HashMap<Identity, TokenBucket>>; SHARDS],
}

impl RateLimiter {
    /// `None` where limiting is off.
    pub fn new(config: &RateLimit) -> Option<Self> {
        let rate = Rate { per_second: config.rate, burst: config.burst };
        config.enabled.then(|| Self { rate, shards: std::array::from_fn(|_| Mutex::default()) })
    }

    pub fn take(&self, identity: &Identity, now: Duration) -> Grant {
        let shard = &self.shards[usize::from(identity[0]) % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_PER_SHARD && !buckets.contains_key(identity) {
            make_room(&mut buckets, self.rate, now);
        }
        buckets.entry(*identity).or_insert_with(|| TokenBucket::full(self.rate, now)).take(self.rate, now)
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
