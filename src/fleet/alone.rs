//! A worker that hears from nobody takes no new work: what it leased meanwhile, others have by now.
//!
//! Somebody is heard when a heartbeat is taken, a controller's request proves itself, or the queue answers. The queue is asked by itself once
//! the others have been silent for a while, so that a fleet without a roster, with nothing to do, is not taken for a fleet that is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{IntGauge, Registry};

use crate::ports::clock::Clock;
use crate::ports::queue::JobQueue;

use super::metrics::registered;

/// The queue has had time for several tries of its own.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// Looks within the time after which a worker is alone.
const LOOKS: u32 = 10;

/// When somebody of the fleet was heard last.
pub struct Heard {
    clock: Arc<dyn Clock>,
    at_ms: AtomicU64,
    alone: AtomicBool,
    shown: IntGauge,
}

impl Heard {
    /// Counts from now.
    pub fn new(clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        let shown = IntGauge::new("faasd_fleet_alone", "1 where this worker takes no work because it hears of nobody.");
        let shown = registered(registry, shown);
        let heard = Self { clock, at_ms: AtomicU64::new(0), alone: AtomicBool::new(false), shown };
        heard.somebody();
        Arc::new(heard)
    }

    /// Somebody was heard now.
    pub fn somebody(&self) {
        self.at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.at_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        self.clock.monotonic().as_millis() as u64
    }

    /// `true`: that is new.
    fn set_alone(&self, alone: bool) -> bool {
        self.shown.set(alone.into());
        self.alone.swap(alone, Ordering::Relaxed) != alone
    }
}

/// Tells `cordon` when the worker becomes alone after `limit`, and when it is not any more. For ever.
pub async fn watch_alone(heard: Arc<Heard>, queue: Arc<dyn JobQueue>, limit: Duration, cordon: impl Fn(bool) + Send) {
    let every = limit / LOOKS;
    loop {
        tokio::time::sleep(every).await;
        if heard.silent_for() > limit / 3 && asked(queue.as_ref()).await {
            heard.somebody();
        }
        let alone = heard.silent_for() >= limit;
        if !heard.set_alone(alone) {
            continue;
        }
        cordon(alone);
        if alone {
            tracing::warn!(
                silent_s = heard.silent_for().as_secs(),
                "nobody of the fleet is heard, neither roster nor queue nor a controller: no new work is taken"
            );
        } else {
            tracing::info!("the fleet is heard again: work is taken as before");
        }
    }
}

async fn asked(queue: &dyn JobQueue) -> bool {
    matches!(tokio::time::timeout(ASK_WITHIN, queue.backlog()).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::fake::{FakeClock, World};
    use std::sync::Mutex;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_secs(30);

    fn watched(world: &Arc<World>) -> (Arc<Heard>, Arc<Mutex<Vec<bool>>>) {
        let heard = Heard::new(Arc::new(FakeClock::new()), &Registry::new());
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = told.clone();
        let cordon = move |on| telling.lock().unwrap().push(on);
        tokio::spawn(watch_alone(heard.clone(), world.clone(), LIMIT, cordon));
        (heard, told)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hears_of_nobody_is_cordoned_until_somebody_is_heard() {
        let world = World::new();
        let (heard, told) = watched(&world);
        world.silent.store(true, Ordering::SeqCst);
        sleep(LIMIT - Duration::from_secs(1)).await;
        assert!(told.lock().unwrap().is_empty() && !heard.is_alone());
        sleep(LIMIT).await;
        assert_eq!(*told.lock().unwrap(), [true]);
        assert!(heard.is_alone());
        heard.somebody();
        sleep(LIMIT / 2).await;
        assert_eq!(*told.lock().unwrap(), [true, false]);
        assert!(!heard.is_alone());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_answers_is_company_enough() {
        let world = World::new();
        let (_heard, told) = watched(&world);
        sleep(LIMIT * 10).await;
        assert!(told.lock().unwrap().is_empty());
        world.silent.store(true, Ordering::SeqCst);
        sleep(LIMIT * 2).await;
        assert_eq!(*told.lock().unwrap(), [true]);
        world.silent.store(false, Ordering::SeqCst);
        sleep(LIMIT).await;
        assert_eq!(*told.lock().unwrap(), [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_heard_now_and_then_is_not_alone() {
        let world = World::new();
        let (heard, told) = watched(&world);
        world.silent.store(true, Ordering::SeqCst);
        for _ in 0..20 {
            sleep(LIMIT / 2).await;
            heard.somebody();
        }
        assert!(told.lock().unwrap().is_empty());
    }
}
