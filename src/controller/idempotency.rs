//! `Idempotency-Key` on synchronous calls: one key, one invocation, one answer.
//!
//! ```text
//! claim → create ── New ──────────→ run, stored before the answer
//!                └─ Existing ─→ final? its record · runs somewhere? wait · abandoned? take over as the next attempt
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::Backend;
use crate::domain::ids::{Digest, InvocationId, Owner};
use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::ports::invocations::{Created, Idempotency, Lookup};

use super::Controller;
use super::auth::Caller;
use super::dispatch::{Call, Durability, wait_expired};
use super::error::{ApiError, Code};
use super::feed::Ended;
use super::follow::expired;
use super::gate::Pass;

const KEY_BYTES_MAX: usize = 255;
/// A waiter looks at the store this often even if no news come.
pub const REREAD_EVERY: Duration = Duration::from_secs(1);

pub fn reused() -> ApiError {
    ApiError::new(
        Code::IdempotencyKeyReused,
        "this Idempotency-Key was used for another request; use a new key for a new request",
    )
}

/// The request's key, with what it is bound to.
pub fn read(headers: &HeaderMap, caller: &Caller, invocation: &Invocation) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let plain = |key: &&str| (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let key = value.to_str().ok().map(str::trim).filter(plain);
    let Some(key) = key else {
        return Err(ApiError::invalid(format!(
            "Idempotency-Key must be 1 to {KEY_BYTES_MAX} visible ASCII characters"
        )));
    };
    Ok(Some(Idempotency {
        owner: caller.owner().clone(),
        function: invocation.version.function_id,
        key: key.to_owned(),
        request: digest(invocation),
    }))
}

/// One replay of one dead letter, however often it is asked for. No caller's key contains a space.
pub fn for_replay(owner: &Owner, invocation: &Invocation, of: InvocationId) -> Idempotency {
    Idempotency {
        owner: owner.clone(),
        function: invocation.version.function_id,
        key: format!("replay of {of}"),
        request: digest(invocation),
    }
}

/// Over what makes two requests the same: function, model and input, but not the function's version.
fn digest(invocation: &Invocation) -> Digest {
    let mut hash = Sha256::new();
    hash.update(invocation.version.function_id.0.as_bytes());
    match &invocation.model_id {
        Some(model) => hash.update([&[1], (model.len() as u64).to_le_bytes().as_slice(), model.as_bytes()].concat()),
        None => hash.update([0]),
    }
    hash.update(&invocation.payload);
    Digest(hash.finalize().into())
}

/// What became of a keyed synchronous request.
pub enum Once {
    /// It runs, because of this request.
    Started(Call),
    /// Its key stands for this invocation.
    Earlier(InvocationId),
}

impl Controller {
    pub async fn start_once(
        self: &Arc<Self>,
        invocation: Arc<Invocation>,
        idempotency: Idempotency,
        pass: Pass,
    ) -> Result<Once, ApiError> {
        // Claimed first: a repeat that finds the record also finds that it runs here.
        let Some(feed) = self.claim(&invocation) else { return Ok(Once::Earlier(invocation.id)) };
        let stored = StoredRecord::new(invocation.version.owner.clone(), Mode::Sync, Record::queued(&invocation));
        let id = invocation.id;
        match self.invocations.create(stored, Some(idempotency)).await {
            Ok(Created::New) => Ok(Once::Started(self.start(feed, invocation, Durability::BeforeAnswer, pass))),
            Ok(Created::Existing(earlier)) => {
                self.feeds.remove(id);
                Ok(Once::Earlier(earlier))
            }
            Ok(Created::KeyReused) => {
                self.feeds.remove(id);
                Err(reused())
            }
            Err(error) => {
                self.feeds.remove(id);
                Err(error.into())
            }
        }
    }

    /// The end of an earlier invocation. `again` is this request's own, to run in its place if nobody does any more.
    pub async fn await_earlier(self: &Arc<Self>, id: InvocationId, again: &Invocation) -> Ended {
        let limit = self.wait_limit(again);
        let deadline = Instant::now() + limit;
        loop {
            let feed = self.feeds.open(id).ok_or_else(|| wait_expired(id))?;
            feed.follow();
            let changed = feed.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match feed.ended() {
                Some(Ok(stored)) => return Ok(stored),
                // Refused before it ran: this request tries again.
                Some(Err(_)) => self.feeds.remove(id),
                None => {}
            }
            if feed.running().is_none() {
                let stored = match self.invocations.get(id).await? {
                    Lookup::Found(stored) if stored.record.status.is_final() => {
                        self.feeds.retire(id, self.clock.monotonic());
                        return Ok(stored);
                    }
                    Lookup::Found(stored) => stored,
                    Lookup::Expired { .. } | Lookup::Unknown => return Err(expired()),
                };
                if self.is_abandoned(&stored, again)
                    && let Some(call) = self.take_over(&stored, again).await?
                {
                    return call.wait(limit).await;
                }
            }
            let until = deadline.min(Instant::now() + REREAD_EVERY);
            let _ = tokio::time::timeout_at(until, changed).await;
            if Instant::now() >= deadline {
                return Err(wait_expired(id));
            }
        }
    }

    /// Whether nobody can be running a synchronous invocation that is not final and does not run here.
    fn is_abandoned(&self, stored: &StoredRecord, again: &Invocation) -> bool {
        // What nobody else can run, and was not given to the queue, runs here or not at all.
        let alone = self.config.backend == Backend::Embedded && !self.queues_all;
        let since = stored.record.started_at.unwrap_or(stored.record.created_at);
        let over = self.now().since(since) > 2 * self.wait_limit(again);
        stored.mode == Mode::Sync && (alone || over)
    }

    async fn take_over(self: &Arc<Self>, stored: &StoredRecord, again: &Invocation) -> Result<Option<Call>, ApiError> {
        let pass = self.admit()?;
        let (id, attempt) = (stored.record.request_id, stored.record.attempt + 1);
        let invocation = Arc::new(Invocation { id, attempt, accepted_at: stored.record.created_at, ..again.clone() });
        let Some(feed) = self.claim(&invocation) else { return Ok(None) };
        match self.invocations.start(id, attempt, self.node_id, self.now()).await {
            Ok(true) => Ok(Some(self.start(feed, invocation, Durability::BeforeAnswer, pass))),
            Ok(false) => {
                self.feeds.remove(id);
                Ok(None)
            }
            Err(error) => {
                self.feeds.remove(id);
                Err(error.into())
            }
        }
    }
}
