//! A synchronous call that goes through the queue: any worker takes it, and its caller waits for the record.
//!
//! ```text
//! listen → record QUEUED and job durable → news of its end, or another look at the store → record
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::domain::job::Job;
use crate::ports::invocations::Lookup;

use super::Controller;
use super::dispatch::{Durability, wait_expired};
use super::error::ApiError;
use super::feed::{Ended, Feed};
use super::follow::expired;
use super::idempotency::REREAD_EVERY;

/// The first look at the store where no news have come; each next one waits twice as long, up to [`REREAD_EVERY`].
const REREAD_FIRST: Duration = Duration::from_millis(100);

impl Controller {
    /// Ends when the invocation does, or some time after its caller has stopped waiting.
    pub(super) async fn run_queued(
        &self,
        invocation: Arc<Invocation>,
        feed: &Arc<Feed>,
        durability: Durability,
    ) -> Ended {
        let id = invocation.id;
        let ended = match self.queue_call(&invocation, durability).await {
            Ok(()) => {
                // From now on the store knows of it, and whoever follows it asks there.
                feed.move_away();
                self.await_stored(&invocation, feed).await
            }
            Err(error) => Err(error),
        };
        if let Ok(stored) = &ended {
            self.metrics.count_finished(stored.record.status);
        }
        ended.map_err(|error| error.about(id))
    }

    async fn queue_call(&self, invocation: &Invocation, durability: Durability) -> Result<(), ApiError> {
        let owner = invocation.version.owner.clone();
        let stored = StoredRecord::new(owner.clone(), Mode::Sync, Record::queued(invocation));
        let job = Job {
            invocation: invocation.id,
            owner,
            version: invocation.version.key(),
            payload: self.place(invocation.payload.clone()).await?,
            model_id: invocation.model_id.clone(),
            accepted_at: invocation.accepted_at,
            mode: Mode::Sync,
        };
        // A call with a key has its record already, made when the key was taken.
        let keyed = durability == Durability::BeforeAnswer;
        if !keyed {
            self.invocations.create(stored.clone(), None).await?;
        }
        self.send(job, stored, keyed).await
    }

    async fn await_stored(&self, invocation: &Invocation, feed: &Feed) -> Ended {
        let id = invocation.id;
        let give_up = Instant::now() + 2 * self.wait_limit(invocation);
        let mut pause = REREAD_FIRST;
        loop {
            let changed = feed.changed();
            tokio::pin!(changed);
            // Listen first, look then: what happens in between wakes us.
            changed.as_mut().enable();
            match self.invocations.get(id).await {
                Ok(Lookup::Found(stored)) if stored.record.status.is_final() => return Ok(stored),
                Ok(Lookup::Found(_)) => {}
                Ok(Lookup::Expired { .. } | Lookup::Unknown) => return Err(expired()),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(invocation_id = %id, %error, "the record of a queued call can't be read now");
                }
                Err(error) => return Err(error.into()),
            }
            // News wake it; nothing but time passes otherwise.
            let _ = tokio::time::timeout_at(give_up.min(Instant::now() + pause), changed).await;
            if Instant::now() >= give_up {
                return Err(wait_expired(id));
            }
            pause = (pause * 2).min(REREAD_EVERY);
        }
    }
}
