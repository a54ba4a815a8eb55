//! Records of synchronous calls that were answered while their outputs were still on their way to the store: kept once those are there,
//! and until then nobody reads them here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::ids::{Digest, InvocationId};
use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::Lost;
use crate::ports::executor::Storing;

use super::Controller;

/// How long whoever asks for such a record waits for it; then it is not there yet.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Those under way; each holds a pass of the gate that shutdown waits for.
#[derive(Default)]
pub(super) struct Settling(Mutex<HashMap<InvocationId, watch::Receiver<()>>>);

impl Settling {
    /// Returns when the record of this call is kept.
    async fn over(&self, id: InvocationId) {
        let under_way = self.lock().get(&id).cloned();
        if let Some(mut under_way) = under_way {
            // Nothing is ever sent: it ends with its sender.
            let _ = tokio::time::timeout(READ_WITHIN, under_way.changed()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, watch::Receiver<()>>> {
        // Every change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a call off the table, and wakes who waits for its record, even if keeping it panics.
struct UnderWay {
    controller: Arc<Controller>,
    id: InvocationId,
    _over: watch::Sender<()>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.controller.settling.lock().remove(&self.id);
    }
}

impl Controller {
    /// The record may be read, or is not there.
    pub(super) async fn settled(&self, id: InvocationId) {
        self.settling.over(id).await;
    }

    /// Keeps a record whose caller is answered, once what it names is stored.
    pub(super) fn keep_when_stored(self: &Arc<Self>, stored: Arc<StoredRecord>, storing: Storing) {
        let id = stored.record.request_id;
        let (sender, receiver) = watch::channel(());
        self.settling.lock().insert(id, receiver);
        let under_way = UnderWay { controller: self.clone(), id, _over: sender };
        let pass = self.steps.enter(usize::MAX);
        tokio::spawn(async move {
            let _pass = pass;
            let controller = &under_way.controller;
            let named: Vec<Digest> = stored.record.artifacts().collect();
            let lost = controller.lost(&named, storing).await;
            let stored = match lost.is_empty() {
                true => stored,
                false => {
                    let mut own = StoredRecord::clone(&stored);
                    own.record.lose(&lost);
                    Arc::new(own)
                }
            };
            if let Err(error) = controller.invocations.finish_behind(stored) {
                tracing::warn!(invocation_id = %id, %error, "the record of a synchronous call is lost");
            }
        });
    }

    /// What of `named` did not get into the store. Where nobody can say, each is looked for.
    pub(super) async fn lost(&self, named: &[Digest], storing: Storing) -> Vec<Lost> {
        if let Some(lost) = storing.await {
            return lost;
        }
        let mut lost = Vec::new();
        for sha256 in named {
            match self.artifacts.touch(*sha256).await {
                Ok(true) => {}
                Ok(false) => lost.push(Lost { sha256: *sha256, why: "its worker was lost meanwhile".to_owned() }),
                Err(error) => lost.push(Lost { sha256: *sha256, why: error.to_string() }),
            }
        }
        lost
    }
}
