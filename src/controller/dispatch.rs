//! A synchronous call: it goes on when its client hangs up, and is recorded however it ends.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::{Digest, InvocationId};
use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::ports::bus::News;
use crate::ports::executor::ExecuteError;
use crate::ports::sandbox::LogSink;

use super::Controller;
use super::detached::Detached;
use super::error::{ApiError, Code, draining};
use super::feed::{Ended, Feed, Running};
use super::gate::Pass;

/// How soon the record of a synchronous call must be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Written behind: nobody was promised it.
    Soon,
    /// Before the answer: the same `Idempotency-Key` must give it again.
    BeforeAnswer,
}

/// A call under way.
pub struct Call {
    pub id: InvocationId,
    pub feed: Arc<Feed>,
    run: Detached<Ended>,
}

impl Controller {
    /// Room for one more synchronous call.
    pub fn admit(&self) -> Result<Pass, ApiError> {
        if self.is_draining() {
            return Err(draining());
        }
        let max = self.config.http.inflight_max;
        self.calls.enter(max).ok_or_else(|| {
            ApiError::new(Code::NoCapacity, format!("{max} calls are running, as many as may; try again shortly"))
        })
    }

    /// How long a synchronous caller waits for this invocation.
    pub fn wait_limit(&self, invocation: &Invocation) -> Duration {
        Duration::from_millis(invocation.version.timeout_ms.saturating_add(self.config.http.sync_wait_extra_ms))
    }

    /// Claims the invocation for this node: from now on `/status` says that it runs. `None` if it runs here already.
    pub fn claim(&self, invocation: &Arc<Invocation>) -> Option<Arc<Feed>> {
        self.feeds.begin(Running { invocation: invocation.clone(), worker: self.node_id, started_at: self.clock.now() })
    }

    /// Runs a claimed invocation; it goes on whatever becomes of the [`Call`].
    pub fn start(
        self: &Arc<Self>,
        feed: Arc<Feed>,
        invocation: Arc<Invocation>,
        durability: Durability,
        pass: Pass,
    ) -> Call {
        let id = invocation.id;
        let controller = self.clone();
        let for_task = feed.clone();
        // Shutdown waits for it at the gate, which it leaves when `pass` is dropped.
        let run = Detached::new(async move {
            let _leaves = Leaving { controller: controller.clone(), feed: for_task.clone(), _pass: pass };
            let ended = controller.run_to_end(invocation, &for_task, durability).await;
            for_task.end(ended.clone());
            ended
        });
        Call { id, feed, run }
    }

    async fn run_to_end(
        self: &Arc<Self>,
        invocation: Arc<Invocation>,
        feed: &Arc<Feed>,
        durability: Durability,
    ) -> Ended {
        if self.queues_all {
            return self.run_queued(invocation, feed, durability).await;
        }
        let acquire = Duration::from_millis(self.config.http.sync_wait_extra_ms);
        let log: Arc<dyn LogSink> = feed.clone();
        let executed = self.executor.execute(invocation.clone(), acquire, Some(log)).await;
        let (mut outcome, refusal) = match executed {
            Ok(outcome) => (outcome, None),
            Err(ExecuteError::Platform(message)) => {
                tracing::error!(invocation_id = %invocation.id, error = %message, "an invocation failed in the platform");
                let failure = Failure::new(ErrorType::PlatformError, message.clone());
                let error = ApiError::from(ExecuteError::Platform(message)).about(invocation.id);
                (Outcome::without_execution(Status::Failed, failure), Some(error))
            }
            // The queue counts its own attempts from 1: what has begun before can't go through it.
            Err(ExecuteError::Unreachable(why)) if invocation.attempt == 1 => {
                tracing::debug!(invocation_id = %invocation.id, why, "no worker reached: the call goes through the queue");
                return self.run_queued(invocation, feed, durability).await;
            }
            Err(error) => return Err(ApiError::from(error).about(invocation.id)),
        };
        let named: Vec<Digest> = outcome.artifacts().collect();
        let mut storing = (!named.is_empty()).then(|| self.executor.storing(invocation.id)).flatten();
        // A record that must be there before the answer names nothing that is not.
        if let Some(storing) = storing.take_if(|_| durability == Durability::BeforeAnswer) {
            outcome.lose(&self.lost(&named, storing).await);
        }
        let stored = Arc::new(self.record_of(&invocation, feed, outcome));
        self.metrics.count_finished(stored.record.status);
        match storing {
            Some(storing) => self.keep_when_stored(stored.clone(), storing),
            None => self.keep_record(stored.clone(), durability).await?,
        }
        match refusal {
            None => Ok(stored),
            Some(error) => Err(error),
        }
    }

    fn record_of(&self, invocation: &Invocation, feed: &Feed, outcome: Outcome) -> StoredRecord {
        let mut record = match feed.running() {
            Some(running) => running_record(running),
            None => Record::queued(invocation),
        };
        record.finish(outcome, self.clock.now());
        StoredRecord::new(invocation.version.owner.clone(), Mode::Sync, record)
    }

    async fn keep_record(&self, stored: Arc<StoredRecord>, durability: Durability) -> Result<(), ApiError> {
        let id = stored.record.request_id;
        match durability {
            Durability::Soon => {
                // The caller has the answer; a store that can't take the record must not take that away.
                if let Err(error) = self.invocations.finish_behind(stored) {
                    tracing::warn!(invocation_id = %id, %error, "the record of a synchronous call is lost");
                }
            }
            Durability::BeforeAnswer => {
                self.invocations.finish(stored).await.map_err(|error| ApiError::from(error).about(id))?;
                self.bus.publish(News::Finished(id));
            }
        }
        Ok(())
    }
}

/// What `/status` shows of a call that runs here.
pub fn running_record(running: &Running) -> Record {
    let mut record = Record::queued(&running.invocation);
    record.start(running.invocation.attempt, running.worker, running.started_at);
    record
}

/// Takes a call off the table even if it panics.
struct Leaving {
    controller: Arc<Controller>,
    feed: Arc<Feed>,
    _pass: Pass,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.feed.end(Err(ApiError::new(Code::InternalError, "the call ended without an answer; the log says why")));
        if self.feed.is_followed() {
            self.controller.feeds.retire(self.feed.id(), self.controller.clock.monotonic());
        } else {
            self.controller.feeds.remove(self.feed.id());
        }
    }
}

impl Call {
    /// The end of it, or 504 when `limit` passes first: the invocation goes on.
    pub async fn wait(self, limit: Duration) -> Ended {
        match tokio::time::timeout(limit, self.run).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_panic)) => Err(ApiError::new(
                Code::InternalError,
                "the call ended without an answer; ask the operator to look at the daemon's log",
            )
            .about(self.id)),
            Err(_elapsed) => Err(wait_expired(self.id)),
        }
    }
}

pub fn wait_expired(id: InvocationId) -> ApiError {
    let sentence =
        "the wait for the answer ran out while the invocation goes on; ask GET /status/{requestId} for its end";
    ApiError::new(Code::WaitExpired, sentence).about(id)
}
