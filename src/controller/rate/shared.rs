//! Limits that hold over all controllers: each draws tokens from the shared bucket ahead of the calls, and goes by a share of its own while nobody answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;

use crate::domain::rate::purse::{Purse, Spent};
use crate::domain::rate::{Grant, Rate};
use crate::ports::buckets::{Buckets, Identity};
use crate::ports::clock::Clock;

use super::{BUCKETS_PER_SHARD, SHARDS};

/// After a draw that failed, everybody goes by the local share for so long; then one draw tries again.
const APART_FOR: Duration = Duration::from_secs(1);
/// How often it is asked how many controllers there are: several times before one counts as gone.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// One caller's tokens here.
#[derive(Default)]
struct Account {
    purse: Purse,
    /// Held by whoever draws, so that those who came together wait for one draw.
    drawing: Arc<Turn<()>>,
}

pub(super) struct Shared {
    rate: Rate,
    buckets: Arc<dyn Buckets>,
    clock: Arc<dyn Clock>,
    shards: [Mutex<HashMap<Identity, Account>>; SHARDS],
    /// Until when the buckets count as unreachable, in µs of the clock; 0: they answer.
    apart_until: AtomicU64,
    /// How many divide the rate while the buckets don't answer, this one included; as of the last count.
    controllers: AtomicU32,
    /// When to count again, in µs of the clock.
    count_at: AtomicU64,
}

/// What came of asking for a token.
pub(super) enum Asked {
    Answered(Grant),
    /// Nobody answers: limit by a share of the whole.
    Apart(Rate),
}

impl Shared {
    pub fn new(rate: Rate, buckets: Arc<dyn Buckets>, clock: Arc<dyn Clock>) -> Self {
        Self {
            rate,
            buckets,
            clock,
            shards: std::array::from_fn(|_| Mutex::default()),
            apart_until: AtomicU64::new(0),
            controllers: AtomicU32::new(1),
            count_at: AtomicU64::new(0),
        }
    }

    pub async fn take(self: &Arc<Self>, identity: &Identity, now: Duration) -> Asked {
        self.count_now_and_then(now);
        if let Some(share) = self.apart(identity, now) {
            return Asked::Apart(share);
        }
        match self.spend(identity, now) {
            (Spent::Granted { grant, draw: 0 }, _) | (Spent::Refused(grant), _) => Asked::Answered(grant),
            (Spent::Granted { grant, draw }, drawing) => {
                // Whoever has the turn draws for us as well.
                if let Ok(turn) = drawing.try_lock_owned() {
                    let (shared, identity) = (self.clone(), *identity);
                    tokio::spawn(async move {
                        shared.draw(&identity, draw).await;
                        drop(turn);
                    });
                }
                Asked::Answered(grant)
            }
            (Spent::Draw(_), drawing) => self.take_in_turn(identity, &drawing).await,
        }
    }

    /// Waits for a draw, one's own or another's. A draw is bounded in time, and so is the row of those who wait: each is a call under way.
    async fn take_in_turn(&self, identity: &Identity, drawing: &Turn<()>) -> Asked {
        let _turn = drawing.lock().await;
        let mut now = self.clock.monotonic();
        // Again only where others have spent what was drawn.
        loop {
            if self.is_apart(now) {
                return Asked::Apart(self.share());
            }
            match self.spend(identity, now).0 {
                Spent::Granted { grant, .. } | Spent::Refused(grant) => return Asked::Answered(grant),
                Spent::Draw(want) => now = self.draw(identity, want).await,
            }
        }
    }

    /// The share to go by, while the buckets don't answer.
    fn apart(self: &Arc<Self>, identity: &Identity, now: Duration) -> Option<Rate> {
        let until = self.apart_until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let micros = now.as_micros() as u64;
        let next = micros + APART_FOR.as_micros() as u64;
        // One call each time sends a draw ahead to see, and waits for it no more than the others do.
        if micros >= until
            && self.apart_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let (shared, identity) = (self.clone(), *identity);
            tokio::spawn(async move { shared.draw(&identity, 1).await });
        }
        Some(self.share())
    }

    /// Finds out in the background how many controllers there are. What can't be found out stays as it was.
    fn count_now_and_then(self: &Arc<Self>, now: Duration) {
        let (at, micros) = (self.count_at.load(Ordering::Relaxed), now.as_micros() as u64);
        let next = micros + COUNT_EVERY.as_micros() as u64;
        if micros >= at && self.count_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let shared = self.clone();
            tokio::spawn(async move {
                if let Ok(controllers) = shared.buckets.sharers().await {
                    shared.controllers.store(controllers.max(1), Ordering::Relaxed);
                }
            });
        }
    }

    fn is_apart(&self, now: Duration) -> bool {
        self.apart_until.load(Ordering::Relaxed) > now.as_micros() as u64
    }

    fn share(&self) -> Rate {
        let controllers = self.controllers.load(Ordering::Relaxed).max(1);
        Rate { per_second: (self.rate.per_second / controllers).max(1), burst: (self.rate.burst / controllers).max(1) }
    }

    /// When it ended. What an empty bucket said holds at that moment, at least.
    async fn draw(&self, identity: &Identity, want: u32) -> Duration {
        let drawn = self.buckets.draw(identity, self.rate, want).await;
        let now = self.clock.monotonic();
        match drawn {
            Ok(drawn) => {
                self.apart_until.store(0, Ordering::Relaxed);
                self.shard(identity).entry(*identity).or_default().purse.put(drawn, now);
            }
            Err(error) => {
                let until = (now + APART_FOR).as_micros() as u64;
                if self.apart_until.swap(until, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "limits are kept by this controller alone: the shared ones don't answer");
                }
            }
        }
        now
    }

    fn spend(&self, identity: &Identity, now: Duration) -> (Spent, Arc<Turn<()>>) {
        let mut shard = self.shard(identity);
        if shard.len() >= BUCKETS_PER_SHARD && !shard.contains_key(identity) {
            shard.retain(|_, account| !account.purse.is_idle(now));
            if shard.len() >= BUCKETS_PER_SHARD
                && let Some(any) = shard.keys().next().copied()
            {
                shard.remove(&any);
            }
        }
        let account = shard.entry(*identity).or_default();
        (account.purse.spend(self.rate, now), account.drawing.clone())
    }

    fn shard(&self, identity: &Identity) -> MutexGuard<'_, HashMap<Identity, Account>> {
        self.shards[usize::from(identity[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
