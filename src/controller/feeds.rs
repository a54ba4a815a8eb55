//! The table of feeds, by invocation: those of calls that run here, those somebody listens to, and for a while those that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::ids::InvocationId;

use super::feed::{Feed, Running};

const SHARDS: usize = 16;
/// Feeds of one shard beside those of calls that run here (`http.inflight_max` bounds these).
const FEEDS_PER_SHARD: usize = 2048;
/// An ended feed can be listened to again for so long …
const KEPT_FOR: Duration = Duration::from_secs(60);
/// … unless this many ended later.
const ENDED_MAX: usize = 4096;

type Shard = HashMap<InvocationId, Arc<Feed>>;

#[derive(Default)]
pub struct Feeds {
    shards: [Mutex<Shard>; SHARDS],
    ended: Mutex<VecDeque<(Duration, InvocationId)>>,
    bytes: Arc<AtomicUsize>,
}

impl Feeds {
    pub fn get(&self, id: InvocationId) -> Option<Arc<Feed>> {
        self.shard(id).get(&id).cloned()
    }

    /// The feed of `id`, made if there is none; `None` when there is no room.
    pub fn open(&self, id: InvocationId) -> Option<Arc<Feed>> {
        let mut shard = self.shard(id);
        if let Some(feed) = shard.get(&id) {
            return Some(feed.clone());
        }
        if shard.len() >= FEEDS_PER_SHARD {
            // Those that only this table holds have neither a listener nor a call: news of their end were lost.
            shard.retain(|_, feed| Arc::strong_count(feed) > 1);
            if shard.len() >= FEEDS_PER_SHARD {
                return None;
            }
        }
        let feed = Arc::new(Feed::new(id, self.bytes.clone()));
        shard.insert(id, feed.clone());
        Some(feed)
    }

    /// Claims `id` for a call that starts here; `None` if it runs here already.
    pub fn begin(&self, running: Running) -> Option<Arc<Feed>> {
        let id = running.invocation.id;
        let mut shard = self.shard(id);
        if let Some(feed) = shard.get(&id).filter(|feed| feed.ended().is_none()) {
            return feed.begin(running).then(|| feed.clone());
        }
        let feed = Arc::new(Feed::new(id, self.bytes.clone()));
        feed.begin(running);
        shard.insert(id, feed.clone());
        Some(feed)
    }

    pub fn remove(&self, id: InvocationId) {
        self.shard(id).remove(&id);
    }

    /// The invocation is over: its feed goes after a while.
    pub fn retire(&self, id: InvocationId, now: Duration) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back((now, id));
        while ended.len() > ENDED_MAX || ended.front().is_some_and(|(at, _)| now.saturating_sub(*at) > KEPT_FOR) {
            if let Some((_, id)) = ended.pop_front() {
                self.remove(id);
            }
        }
    }

    /// Makes every listener look again: news were lost.
    pub fn nudge_all(&self) {
        for shard in &self.shards {
            for feed in lock(shard).values() {
                feed.nudge();
            }
        }
    }

    fn shard(&self, id: InvocationId) -> MutexGuard<'_, Shard> {
        // The last byte of a version 7 id is random.
        lock(&self.shards[usize::from(id.0.as_bytes()[15]) % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_that_nobody_holds_make_room() {
        let feeds = Feeds::default();
        let ids = (0..(SHARDS * FEEDS_PER_SHARD) as u128 * 2).map(|n| InvocationId(uuid::Uuid::from_u128(n)));
        assert!(ids.clone().all(|id| feeds.open(id).is_some()));
        let held: Vec<_> = ids.map_while(|id| feeds.open(id)).collect();
        assert_eq!(held.len(), SHARDS * FEEDS_PER_SHARD);
    }

    #[test]
    fn ended_feeds_go_after_a_while() {
        let (feeds, id) = (Feeds::default(), InvocationId(uuid::Uuid::from_u128(1)));
        feeds.open(id);
        feeds.retire(id, Duration::ZERO);
        assert!(feeds.get(id).is_some());
        feeds.retire(InvocationId(uuid::Uuid::from_u128(2)), KEPT_FOR + Duration::from_millis(1));
        assert!(feeds.get(id).is_none());
    }
}
