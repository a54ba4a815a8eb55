//! Jobs that nobody who had them came to an end with, put aside by the queue or handed out once more than may be: their records end as
//! DEAD and they become dead letters, without being run.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::job::Lease;
use crate::ports::invocations::Lookup;

use super::job::End;
use super::{Phase, Worker};

/// Between two questions. Such a job has waited for several leases to run out already.
const EVERY: Duration = Duration::from_secs(30);
/// Jobs asked for at once; every worker asks.
const JOBS_MAX: usize = 10;
const WHY: &str = "no worker came to an end with this call: each that began it ended itself, or lost it";

impl Worker {
    pub(super) async fn bury_given_up(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            if *self.phase.borrow() > Phase::Active {
                continue;
            }
            match self.queue.given_up(JOBS_MAX).await {
                Ok(leases) => {
                    for lease in leases {
                        self.end_given_up(&lease).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "jobs that were put aside can't be had now"),
            }
        }
    }

    pub(super) async fn end_given_up(&self, lease: &Lease) {
        let id = lease.job.invocation;
        // One that ended and could not be acknowledged is no dead one.
        let end = match self.invocations.get(id).await {
            Ok(Lookup::Found(found)) if found.record.status.is_final() => End::Over,
            Ok(_) => self.lost_for_good(lease.job.mode, WHY),
            Err(error) => {
                tracing::warn!(invocation_id = %id, %error, "a job that was given up waits for its record");
                return;
            }
        };
        tracing::warn!(invocation_id = %id, attempt = lease.attempt, end = end.as_str(), "a job was given up");
        self.settle(lease, None, end).await;
    }
}
