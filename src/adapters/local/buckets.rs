//! Buckets in a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::domain::rate::{Drawn, Rate, TokenBucket};
use crate::ports::Unavailable;
use crate::ports::buckets::{Buckets, Identity};
use crate::ports::clock::Clock;

use super::locked;

/// Identities before those whose buckets are full again are cleared away, and then any.
const BUCKETS_MAX: usize = 65_536;

pub(super) struct LocalBuckets {
    clock: Arc<dyn Clock>,
    buckets: Mutex<HashMap<Identity, TokenBucket>>,
}

impl LocalBuckets {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, buckets: Mutex::default() }
    }
}

#[async_trait]
impl Buckets for LocalBuckets {
    async fn draw(&self, identity: &Identity, rate: Rate, want: u32) -> Result<Drawn, Unavailable> {
        let now = self.clock.monotonic();
        let mut buckets = locked(&self.buckets);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(identity) {
            buckets.retain(|_, bucket| !bucket.is_full(rate, now));
            if buckets.len() >= BUCKETS_MAX
                && let Some(any) = buckets.keys().next().copied()
            {
                buckets.remove(&any);
            }
        }
        Ok(buckets.entry(*identity).or_insert_with(|| TokenBucket::full(rate, now)).draw(rate, now, want))
    }
    /// Never asked for in earnest: what is in this process can be reached.
    async fn sharers(&self) -> Result<u32, Unavailable> {
        Ok(1)
    }
}
