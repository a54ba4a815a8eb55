//! An asynchronous call: record and job durable, then 202.

use std::time::Duration;

use bytes::Bytes;

use crate::config::Backend;
use crate::domain::disk::Room;
use crate::domain::ids::InvocationId;
use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::domain::job::{Job, Payload};
use crate::domain::outcome::{ErrorType, Failure, Outcome, Status};
use crate::ports::StoreError;
use crate::ports::invocations::{Created, Idempotency, Lookup};

use super::Controller;
use super::error::{ApiError, Code, draining};
use super::idempotency::reused;

/// A disk is not emptied sooner.
const DISK_RETRY: Duration = Duration::from_secs(30);

/// What is sent with an accepted invocation beside its input.
#[derive(Default)]
pub struct Acceptance {
    pub idempotency: Option<Idempotency>,
    pub replay_of: Option<InvocationId>,
}

impl Controller {
    /// Accepts the invocation, or finds the one that its idempotency key stands for. Durable on return.
    pub async fn accept(&self, invocation: Invocation, with: Acceptance) -> Result<InvocationId, ApiError> {
        if self.is_draining() {
            return Err(draining());
        }
        // Elsewhere neither record nor job is on this disk.
        if self.config.backend == Backend::Embedded && self.disk.room() == Room::Full {
            return Err(ApiError::new(Code::NoCapacity, "no capacity: the disk is full; try again later")
                .retry_after(DISK_RETRY));
        }
        let keyed = with.idempotency.is_some();
        let payload = self.place(invocation.payload.clone()).await?;
        let mut record = Record::queued(&invocation);
        record.replay_of = with.replay_of;
        let stored = StoredRecord::new(invocation.version.owner.clone(), Mode::Async, record);
        let job = Job {
            invocation: invocation.id,
            owner: stored.owner.clone(),
            version: invocation.version.key(),
            payload,
            model_id: invocation.model_id,
            accepted_at: invocation.accepted_at,
            mode: Mode::Async,
        };
        if !keyed && self.invocations.precedes_queue() {
            // In this order. A job whose record failed finds none to start, and is let go.
            let create = self.invocations.create(stored.clone(), None);
            let (created, sent) = tokio::join!(biased; create, self.queue.send(job, Duration::ZERO));
            created?;
            self.sent(sent, stored, keyed).await?;
            self.metrics.async_accepted.inc();
            return Ok(invocation.id);
        }
        match self.invocations.create(stored.clone(), with.idempotency).await? {
            Created::New => self.send(job, stored, keyed).await?,
            Created::KeyReused => return Err(reused()),
            Created::Existing(id) => return self.accept_again(id, job).await,
        }
        self.metrics.async_accepted.inc();
        Ok(invocation.id)
    }

    /// Too large for a message: the input goes beside it.
    pub(super) async fn place(&self, payload: Bytes) -> Result<Payload, ApiError> {
        if payload.len() as u64 <= self.config.limits.async_payload_bytes {
            return Ok(Payload::Inline(payload));
        }
        Ok(Payload::Stored(self.artifacts.put(payload).await?))
    }

    pub(super) async fn send(&self, job: Job, stored: StoredRecord, keyed: bool) -> Result<(), ApiError> {
        self.sent(self.queue.send(job, Duration::ZERO).await, stored, keyed).await
    }

    async fn sent(&self, sent: Result<(), StoreError>, stored: StoredRecord, keyed: bool) -> Result<(), ApiError> {
        let Err(error) = sent else { return Ok(()) };
        // With a key, the same request again sends the same job; without one nobody could, so the record is closed.
        if !keyed {
            self.close(stored, &error).await;
        }
        Err(error.into())
    }

    async fn close(&self, mut stored: StoredRecord, error: &StoreError) {
        let failure = Failure::new(ErrorType::PlatformError, format!("the call was refused: {error}"));
        stored.record.finish(Outcome::without_execution(Status::Failed, failure), self.now());
        let id = stored.record.request_id;
        if let Err(error) = self.invocations.finish(stored.into()).await {
            tracing::warn!(invocation_id = %id, %error, "the record of a refused call stays open");
        }
    }

    /// The key was used before. If the earlier request got no further than its record, its job is sent now.
    async fn accept_again(&self, id: InvocationId, job: Job) -> Result<InvocationId, ApiError> {
        if let Lookup::Found(stored) = self.invocations.get(id).await?
            && stored.mode == Mode::Async
            && stored.record.status == Status::Queued
        {
            let version = crate::domain::ids::VersionKey { number: stored.record.version, ..job.version };
            let accepted_at = stored.record.created_at;
            self.queue.send(Job { invocation: id, version, accepted_at, ..job }, Duration::ZERO).await?;
        }
        Ok(id)
    }
}
