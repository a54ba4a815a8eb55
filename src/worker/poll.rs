//! The poll loop: as many jobs as there are free places for them, never more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::domain::job::Lease;
use crate::ports::StoreError;

use super::capacity::all_but_reserve;
use super::{Phase, Worker};

/// How long one question to the queue waits for an answer; as long as the queues behind it allow.
const WAIT: Duration = Duration::from_secs(20);
/// How long a question under way at a cordon may still bring something.
const WAIT_AT_CORDON: Duration = Duration::from_millis(200);
/// Jobs asked for at once.
const BATCH_MAX: usize = 64;
/// One call in so many is kept for callers who wait.
const RESERVE_PART: usize = 8;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Jobs at once: what runs at once less a reserve for synchronous calls, at least one.
fn jobs_max(concurrency: usize) -> usize {
    (concurrency - concurrency.div_ceil(RESERVE_PART).min(concurrency)).max(1)
}

/// Of those, an owner's: some are left for other owners' jobs, and of what it may run at once some for its own callers who wait.
fn per_owner_max(jobs: usize, share: usize) -> usize {
    all_but_reserve(jobs).min(jobs_max(share)).max(1)
}

/// Counts a lease as held, however its job ends.
struct Held(prometheus::IntGauge);

impl Held {
    fn new(leases: prometheus::IntGauge) -> Self {
        leases.inc();
        Self(leases)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Worker {
    /// Until the drain, but for cordons; returns when every job that was taken is over.
    pub(super) async fn poll(self: Arc<Self>) {
        let (concurrency, share) = self.sandboxes.with_pool(|pool| {
            let settings = pool.settings();
            (settings.concurrency_max, settings.share.concurrency)
        });
        let (jobs, per_owner_max) = (jobs_max(concurrency), per_owner_max(jobs_max(concurrency), share));
        let places = Arc::new(Semaphore::new(jobs));
        let mut jobs = JoinSet::new();
        let mut pause = PAUSE_FIRST;
        while self.is_open().await {
            let Some(places) = self.free_places(&places).await else { continue };
            while jobs.try_join_next().is_some() {}
            match self.receive(places.len(), per_owner_max).await {
                Ok(leases) => {
                    pause = PAUSE_FIRST;
                    for (lease, place) in leases.into_iter().zip(places) {
                        jobs.spawn(self.clone().job(lease, place));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "queue not readable");
                    drop(places);
                    self.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        while jobs.join_next().await.is_some() {}
    }

    /// Waits while the worker is cordoned; `false`: it drains.
    async fn is_open(&self) -> bool {
        let mut phase = self.phase.subscribe();
        phase.wait_for(|phase| *phase != Phase::Cordoned).await.is_ok_and(|phase| *phase == Phase::Active)
    }

    async fn job(self: Arc<Self>, lease: Lease, place: OwnedSemaphorePermit) {
        let _held = Held::new(self.metrics.leases.clone());
        self.run_job(lease).await;
        drop(place);
    }

    /// Waits for one place and takes those that are free beside it; `None` at the cordon.
    async fn free_places(&self, places: &Arc<Semaphore>) -> Option<Vec<OwnedSemaphorePermit>> {
        let mut phase = self.phase.subscribe();
        let first = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Active) => return None,
            first = places.clone().acquire_owned() => first.ok()?,
        };
        let mut taken = vec![first];
        while taken.len() < BATCH_MAX
            && let Ok(place) = places.clone().try_acquire_owned()
        {
            taken.push(place);
        }
        Some(taken)
    }

    async fn receive(&self, max: usize, per_owner_max: usize) -> Result<Vec<Lease>, StoreError> {
        let mut answer = self.queue.receive(max, per_owner_max, WAIT);
        let mut phase = self.phase.subscribe();
        tokio::select! {
            biased;
            leases = &mut answer => return leases,
            _ = phase.wait_for(|phase| *phase > Phase::Active) => {}
        }
        // What it may still bring is given back by its job, which finds the pool draining. What comes later than this comes
        // again when its lease runs out.
        tokio::time::timeout(WAIT_AT_CORDON, answer).await.unwrap_or(Ok(Vec::new()))
    }

    async fn pause(&self, pause: Duration) {
        let mut phase = self.phase.subscribe();
        let _ = tokio::time::timeout(pause, phase.wait_for(|phase| *phase > Phase::Active)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_leave_places_for_callers_who_wait() {
        for (concurrency, jobs) in [(1, 1), (2, 1), (8, 7), (16, 14), (64, 56)] {
            assert_eq!(jobs_max(concurrency), jobs, "{concurrency}");
        }
    }

    #[test]
    fn one_owner_s_jobs_leave_places_for_another_s() {
        for (jobs, share, most) in [(1, 10, 1), (7, 100, 7), (56, 100, 49), (56, 3, 2), (56, 1, 1)] {
            assert_eq!(per_owner_max(jobs, share), most, "{jobs}");
        }
    }
}
