//! One leased job: RUNNING, executed with its lease extended, its end stored, told and acknowledged, in that order.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::domain::job::{Lease, LeaseToken, Payload};
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::domain::policy::retry::Verdict;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactError;
use crate::ports::bus::News;
use crate::ports::executor::ExecuteError;
use crate::ports::invocations::Lookup;
use crate::ports::queue::QueueError;

use super::cancel::Why;
use super::sandboxes::Wait;
use super::{Phase, Worker};

/// How long a job waits for a sandbox before it goes back to the queue.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);
/// Before a job comes back that found no place here.
const NO_PLACE_DELAY: Duration = Duration::from_secs(1);
/// A final record that can't be stored is tried so often before its job is left to its lease.
const STORE_TRIES: u32 = 5;
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// What is to become of the job.
pub(super) enum End {
    /// Done by this attempt: store it and acknowledge.
    Final(Outcome),
    /// Given up: store it as DEAD and bury.
    Dead(Outcome),
    Again {
        delay: Duration,
        counted: bool,
    },
    /// Its record is final already: nothing to store.
    Over,
    /// Somebody else's now: touch nothing.
    Lost,
}

impl End {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            End::Final(_) => "done",
            End::Dead(_) => "dead",
            End::Again { counted: true, .. } => "retried",
            End::Again { .. } => "given_back",
            End::Over => "over",
            End::Lost => "lost",
        }
    }
}

impl Worker {
    pub(super) async fn run_job(&self, lease: Lease) {
        let id = lease.job.invocation;
        if *self.phase.borrow() > Phase::Active {
            let end = End::Again { delay: Duration::ZERO, counted: false };
            return self.settle(&lease, None, end).await;
        }
        // Whoever had it ended with it, each time: one more attempt may end this worker too.
        if lease.attempt > self.retry.attempts_max {
            return self.end_given_up(&lease).await;
        }
        let (invocation, end) = match self.prepare(&lease).await {
            Ok(invocation) => {
                let end = self.attempt(&lease, &invocation).await;
                (Some(invocation), end)
            }
            Err(end) => (None, end),
        };
        tracing::debug!(invocation_id = %id, attempt = lease.attempt, end = end.as_str(), "job ended");
        self.settle(&lease, invocation, end).await;
    }

    async fn prepare(&self, lease: &Lease) -> Result<Arc<Invocation>, End> {
        let job = &lease.job;
        let version = match self.registry.version(job.version).await {
            Ok(Some(version)) => version,
            Ok(None) => return Err(self.lost_for_good(job.mode, "the function's version is gone")),
            Err(error) => return Err(self.platform(lease, &error.to_string())),
        };
        let payload = match &job.payload {
            Payload::Inline(bytes) => bytes.clone(),
            Payload::Stored(digest) => match self.artifacts.get(*digest).await {
                Ok(bytes) => bytes,
                Err(ArtifactError::NotFound) => {
                    return Err(self.lost_for_good(job.mode, "the stored payload is gone"));
                }
                Err(error) => return Err(self.platform(lease, &error.to_string())),
            },
        };
        Ok(Arc::new(Invocation {
            id: job.invocation,
            version,
            payload,
            model_id: job.model_id.clone(),
            attempt: lease.attempt,
            accepted_at: job.accepted_at,
            mode: job.mode,
        }))
    }

    async fn attempt(&self, lease: &Lease, invocation: &Arc<Invocation>) -> End {
        let id = invocation.id;
        match self.invocations.start(id, lease.attempt, self.identity.id, self.clock.now()).await {
            Ok(true) => {}
            Ok(false) => return End::Over,
            Err(error) => return self.platform(lease, &error.to_string()),
        }
        let begun = self.clock.monotonic();
        let result = self.execute_leased(lease, invocation).await;
        tracing::debug!(invocation_id = %id, elapsed = ?self.clock.monotonic().saturating_sub(begun), "attempt ended");
        match result {
            None => End::Lost,
            Some(Ok(outcome)) => self.judge(lease, outcome),
            Some(Err(ExecuteError::Draining)) => End::Again { delay: Duration::ZERO, counted: false },
            Some(Err(
                ExecuteError::NoCapacity { .. }
                | ExecuteError::TooManyCalls { .. }
                | ExecuteError::Stale
                | ExecuteError::Withdrawn
                | ExecuteError::Unreachable(_),
            )) => End::Again { delay: NO_PLACE_DELAY, counted: false },
            Some(Err(ExecuteError::Unsupported(why) | ExecuteError::Platform(why))) => self.platform(lease, &why),
        }
    }

    fn judge(&self, lease: &Lease, outcome: Outcome) -> End {
        let ended_by_drain = outcome.status == Status::Cancelled && *self.phase.borrow() == Phase::Ending;
        if ended_by_drain {
            return End::Again { delay: Duration::ZERO, counted: false };
        }
        // Whoever waits for the function's answer has it, whatever it is.
        if lease.job.mode == Mode::Sync {
            return End::Final(outcome);
        }
        match self.retry.after(lease.job.invocation, lease.attempt, outcome.status) {
            Verdict::Final => End::Final(outcome),
            Verdict::Retry { delay } => End::Again { delay, counted: true },
            Verdict::Bury => End::Dead(outcome),
        }
    }

    /// The platform's failure: tried again like the function's.
    fn platform(&self, lease: &Lease, why: &str) -> End {
        let id = lease.job.invocation;
        tracing::warn!(invocation_id = %id, attempt = lease.attempt, error = why, "attempt failed");
        match self.retry.after_failure(id, lease.attempt) {
            Verdict::Retry { delay } => End::Again { delay, counted: true },
            Verdict::Final | Verdict::Bury => self.lost_for_good(lease.job.mode, why),
        }
    }

    /// Nobody replays a call that its caller has seen fail.
    pub(super) fn lost_for_good(&self, mode: Mode, why: &str) -> End {
        let failure = Failure::new(ErrorType::PlatformError, why);
        match mode {
            Mode::Sync => End::Final(Outcome::without_execution(Status::Failed, failure)),
            Mode::Async => End::Dead(Outcome::without_execution(Status::Dead, failure)),
        }
    }

    /// Executes while extending the lease at a third of its time; `None` if the lease was lost meanwhile.
    async fn execute_leased(
        &self,
        lease: &Lease,
        invocation: &Arc<Invocation>,
    ) -> Option<Result<Outcome, ExecuteError>> {
        let sink = self.listeners.sink_for(invocation.id, lease.attempt);
        let mut call = std::pin::pin!(async {
            let mut outcome = self.run_invocation(invocation, Wait::Patiently, ACQUIRE_TIMEOUT, sink).await?;
            // The record is all that anybody hears of it, and names nothing that is not there.
            if let Some(storing) = self.uploads.under_way(invocation.id) {
                outcome.lose(&storing.await.unwrap_or_default());
            }
            Ok(outcome)
        });
        let every = (lease.valid_for / 3).max(Duration::from_millis(10));
        loop {
            tokio::select! {
                biased;
                result = &mut call => return Some(result),
                () = tokio::time::sleep(every) => {}
            }
            let extended = tokio::select! {
                biased;
                result = &mut call => return Some(result),
                extended = self.queue.extend(&lease.token, lease.valid_for) => extended,
            };
            let result = match &extended {
                Ok(()) => "extended",
                Err(QueueError::LeaseLost) => "lost",
                Err(QueueError::Store(_)) => "failed",
            };
            self.metrics.lease_extensions.with_label_values(&[result]).inc();
            match extended {
                Ok(()) => {}
                Err(QueueError::LeaseLost) => {
                    tracing::warn!(invocation_id = %invocation.id, attempt = lease.attempt, "lease lost");
                    self.calls.tell(invocation.id, Why::LeaseLost);
                    let _ = call.await;
                    return None;
                }
                Err(QueueError::Store(error)) => {
                    tracing::warn!(invocation_id = %invocation.id, %error, "lease not extended");
                }
            }
        }
    }

    pub(super) async fn settle(&self, lease: &Lease, invocation: Option<Arc<Invocation>>, end: End) {
        self.metrics.jobs.with_label_values(&[end.as_str()]).inc();
        let token = &lease.token;
        let done = match end {
            End::Lost => return,
            End::Again { delay, counted } => self.queue.give_back(token, delay, counted).await,
            End::Over => self.clear(lease).await,
            End::Final(outcome) => {
                if !self.store(lease, invocation.as_deref(), outcome).await {
                    return;
                }
                self.queue.acknowledge(token).await
            }
            End::Dead(outcome) => {
                let reason = outcome.failure.as_ref().map_or_else(String::new, |f| f.message.clone());
                let outcome = Outcome { status: Status::Dead, ..outcome };
                if !self.store(lease, invocation.as_deref(), outcome).await {
                    return;
                }
                self.queue.bury(token, &reason).await
            }
        };
        match done {
            Ok(()) => {}
            Err(QueueError::LeaseLost) => {
                tracing::debug!(invocation_id = %lease.job.invocation, "lease was lost at the end");
            }
            Err(QueueError::Store(error)) => {
                tracing::warn!(invocation_id = %lease.job.invocation, %error, "job not settled, it will come again");
            }
        }
    }

    /// The job of a record that is final already. A dead one's letter may not have been written before a crash.
    async fn clear(&self, lease: &Lease) -> Result<(), QueueError> {
        let token: &LeaseToken = &lease.token;
        if let Lookup::Found(found) = self.invocations.get(lease.job.invocation).await?
            && found.record.status == Status::Dead
        {
            let reason = found.record.error_message.clone().unwrap_or_default();
            return self.queue.bury(token, &reason).await;
        }
        self.queue.acknowledge(token).await
    }

    /// Stores the final record, then tells it; `false` if it could not be stored, so that the job must come again.
    async fn store(&self, lease: &Lease, invocation: Option<&Invocation>, outcome: Outcome) -> bool {
        let id = lease.job.invocation;
        let now = self.clock.now();
        let Some(record) = self.record(lease, invocation, now).await else { return true };
        let StoredRecord { owner, mode, mut record, .. } = record;
        record.finish(outcome, now);
        let record = Arc::new(StoredRecord::new(owner, mode, record));
        let mut pause = STORE_PAUSE;
        for _ in 0..STORE_TRIES {
            match self.invocations.finish(record.clone()).await {
                Ok(stored) => {
                    if stored {
                        self.bus.publish(News::Finished(id));
                    } else {
                        let attempt = lease.attempt;
                        tracing::warn!(invocation_id = %id, attempt, "outcome refused: the record is final, or a later attempt's");
                    }
                    return true;
                }
                Err(StoreError::Unavailable(error)) => {
                    tracing::warn!(invocation_id = %id, error, "final record not stored");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    tracing::error!(invocation_id = %id, %error, "final record not stored");
                    return false;
                }
            }
        }
        false
    }

    /// The record as it is kept, or made anew where none is; `None` where there is nothing to make one from.
    async fn record(&self, lease: &Lease, invocation: Option<&Invocation>, now: Timestamp) -> Option<StoredRecord> {
        let mut stored = match self.invocations.get(lease.job.invocation).await {
            Ok(Lookup::Found(found)) => StoredRecord::clone(&found),
            _ => StoredRecord::new(lease.job.owner.clone(), lease.job.mode, Record::queued(invocation?)),
        };
        if stored.record.started_at.is_none() || stored.record.attempt != lease.attempt {
            stored.record.start(lease.attempt, self.identity.id, now);
        }
        Some(stored)
    }
}
