//! Synchronous calls whose controller ended before they did: their records end too, once nobody can be running them any more.
//!
//! A call with an `Idempotency-Key` has a record before its end. The same request sent again takes such a call over (`idempotency`); this
//! is for those that nobody sends again. Where all calls go through the queue, their jobs come to an end by themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::VersionKey;
use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::bus::News;

use super::Controller;

/// Records looked at in one round: many more than a fleet's controllers run at once are never open for so long.
const RECORDS_MAX: usize = 1000;
const WHY: &str =
    "the controller that this call came to ended before the call did; send it again with a new Idempotency-Key";

impl Controller {
    /// Ends them as FAILED, on condition of the attempt: one that was taken over meanwhile goes on. How many were ended.
    pub async fn end_abandoned(&self) -> Result<u64, StoreError> {
        if self.queues_all {
            return Ok(0);
        }
        let now = self.now();
        let youngest = Timestamp(now.as_millis().saturating_sub(2 * self.config.http.sync_wait_extra_ms));
        let mut ended = 0;
        for stored in self.invocations.waited_for(youngest, RECORDS_MAX).await? {
            let id = stored.record.request_id;
            if self.feeds.get(id).is_some_and(|feed| feed.running().is_some()) || !self.is_overdue(&stored, now).await?
            {
                continue;
            }
            let mut own = StoredRecord::clone(&stored);
            let failure = Failure::new(ErrorType::PlatformError, WHY);
            own.record.finish(Outcome::without_execution(Status::Failed, failure), now);
            if self.invocations.finish(Arc::new(own)).await? {
                tracing::warn!(invocation_id = %id, attempt = stored.record.attempt, "a call was ended that nobody runs any more");
                self.bus.publish(News::Finished(id));
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Three times as long has passed as its caller would have waited: after twice that, a repeat may have taken it over.
    async fn is_overdue(&self, stored: &StoredRecord, now: Timestamp) -> Result<bool, StoreError> {
        let record = &stored.record;
        let key = VersionKey { function: record.function_id, number: record.version };
        let version = self.functions.registry().version(key).await?;
        let timeout_ms = version.map_or(self.config.limits.timeout_ms_max, |version| version.timeout_ms);
        let wait = Duration::from_millis(timeout_ms.saturating_add(self.config.http.sync_wait_extra_ms));
        Ok(now.since(record.started_at.unwrap_or(record.created_at)) > 3 * wait)
    }
}
