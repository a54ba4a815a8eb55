//! The figure by which the fleet grows and shrinks, computed by every controller and published by one.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::scaling::{Part, Work};
use crate::ports::executor::{Executor, WorkerState, WorkerView};
use crate::ports::locks::Locks;
use crate::ports::queue::JobQueue;
use crate::ports::signal::Signal;

use super::metrics::Metrics;

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A leader that falls silent has a successor after three looks.
const LEADS_FOR: Duration = Duration::from_secs(30);
const LOCK: &str = "scaling";

pub struct Scaling {
    pub queue: Arc<dyn JobQueue>,
    pub executor: Arc<dyn Executor>,
    pub metrics: Arc<Metrics>,
    /// `None`: this controller has no others beside it, or can't know of them.
    pub locks: Option<Arc<dyn Locks>>,
    /// `None`: nobody wants to be told.
    pub signal: Option<Arc<dyn Signal>>,
    /// What this controller is called.
    pub holder: String,
}

/// For ever.
pub async fn scale(scaling: Scaling) {
    loop {
        scaling.look().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Scaling {
    pub(super) async fn look(&self) {
        let workers: Vec<WorkerView> = self.executor.view().into_iter().chain(self.executor.others()).collect();
        let queued = match self.queue.backlog().await {
            Ok(backlog) => backlog.ready,
            Err(error) => return tracing::warn!(%error, "the queue does not say what waits: the scaling figure stays"),
        };
        let work = Work::of(&parts(&workers), queued).per_worker();
        self.metrics.observe(&workers, work);
        let Some(signal) = &self.signal else { return };
        if !self.leads().await {
            return;
        }
        if let Err(error) = signal.publish(work).await {
            tracing::warn!(%error, "the scaling figure was not published");
        }
    }

    async fn leads(&self) -> bool {
        let Some(locks) = &self.locks else { return true };
        match locks.acquire(LOCK, &self.holder, LEADS_FOR).await {
            Ok(held) => held.is_some(),
            // The same figure twice is better than none: those who read it take the highest.
            Err(_) => true,
        }
    }
}

fn parts(workers: &[WorkerView]) -> Vec<Part> {
    let living = workers.iter().filter(|worker| worker.state != WorkerState::Dead);
    living
        .map(|worker| Part {
            calls: u64::from(worker.active) + u64::from(worker.waiting),
            slots: if worker.state == WorkerState::Active { u64::from(worker.capacity) } else { 0 },
            // A worker may tell anything.
            mean: Duration::try_from_secs_f64(worker.mean_ms / 1000.0).unwrap_or_default(),
        })
        .collect()
}
