//! What a call leaves behind, its files and its full log, on the way to the artifact store.
//!
//! Where the store is far, the outcome goes first: it names what is on its way by the digest, and whoever makes a record of it waits for
//! the end of that (`Executor::storing`). Where the store is near, or as much is on its way as may be, all is stored before the outcome is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::ids::{Digest, InvocationId};
use crate::domain::outcome::{Lost, OutputFile};
use crate::ports::artifacts::ArtifactStore;
use crate::ports::executor::Storing;

use super::metrics::Metrics;
use super::tasks::Tasks;

/// On their way at once, in KiB: all of it is held in memory.
const KIB_MAX: usize = 128 * 1024;
/// What has not arrived by then is lost.
const WITHIN: Duration = Duration::from_secs(60);
/// Less is hashed where it is; more would hold up the thread.
const HASH_HERE_MAX: usize = 256 << 10;

/// What an outcome names, and what of it is lost already.
#[derive(Default)]
pub(super) struct Named {
    pub log: Option<Digest>,
    pub files: Vec<OutputFile>,
    pub lost: Vec<Lost>,
}

struct UnderWay {
    ended: oneshot::Receiver<Vec<Lost>>,
    /// Until somebody asked: what nobody asks for bounds itself so.
    _room: Arc<OwnedSemaphorePermit>,
}

pub(super) struct Uploads {
    artifacts: Arc<dyn ArtifactStore>,
    metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
    under_way: Mutex<HashMap<InvocationId, UnderWay>>,
    tasks: Tasks,
}

impl Uploads {
    pub fn new(artifacts: Arc<dyn ArtifactStore>, metrics: Arc<Metrics>) -> Self {
        let room = Arc::new(Semaphore::new(KIB_MAX));
        Self { artifacts, metrics, room, under_way: Mutex::default(), tasks: Tasks::default() }
    }

    /// Begins to store what a call left, or stores it.
    pub async fn take(&self, id: InvocationId, log: Option<Bytes>, files: Vec<(String, Bytes)>) -> Named {
        if log.is_none() && files.is_empty() {
            return Named::default();
        }
        let mut named = Named::default();
        let mut parts: Vec<(Digest, Bytes)> = Vec::with_capacity(files.len() + 1);
        if let Some(text) = log {
            let sha256 = digest(text.clone()).await;
            named.log = Some(sha256);
            parts.push((sha256, text));
        }
        for (name, bytes) in files {
            let sha256 = digest(bytes.clone()).await;
            named.files.push(OutputFile { name, size_bytes: bytes.len() as u64, sha256 });
            parts.push((sha256, bytes));
        }
        let storing = store(id, self.artifacts.clone(), self.metrics.clone(), parts);
        let bytes = storing.1;
        let room = match self.artifacts.is_far() {
            true => self.room.clone().try_acquire_many_owned(kib(bytes)).ok(),
            false => None,
        };
        match room {
            Some(room) => self.begin(id, Arc::new(room), storing.0),
            None => named.lost = storing.0.await,
        }
        named
    }

    fn begin(
        &self,
        id: InvocationId,
        room: Arc<OwnedSemaphorePermit>,
        storing: impl Future<Output = Vec<Lost>> + Send + 'static,
    ) {
        let (tell, ended) = oneshot::channel();
        self.lock().insert(id, UnderWay { ended, _room: room.clone() });
        let under_way = self.metrics.uploads_under_way.clone();
        under_way.inc();
        self.tasks.spawn(async move {
            let lost = storing.await;
            under_way.dec();
            drop(room);
            // Nobody is left who would make a record of it.
            let _ = tell.send(lost);
        });
    }

    /// Once for each call. `None`: nothing of it is on its way.
    pub fn under_way(&self, id: InvocationId) -> Option<Storing> {
        let UnderWay { ended, _room } = self.lock().remove(&id)?;
        Some(Box::pin(async move {
            let _room = _room;
            ended.await.ok()
        }))
    }

    /// Returns when nothing is on its way.
    pub async fn join(&self) {
        self.tasks.join().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, UnderWay>> {
        // Every change is one step.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores all, one after the other, as long as there is time; and how many bytes they are.
fn store(
    id: InvocationId,
    artifacts: Arc<dyn ArtifactStore>,
    metrics: Arc<Metrics>,
    parts: Vec<(Digest, Bytes)>,
) -> (impl Future<Output = Vec<Lost>> + Send + 'static, usize) {
    let bytes = parts.iter().map(|(_, bytes)| bytes.len()).sum();
    let storing = async move {
        let until = tokio::time::Instant::now() + WITHIN;
        let mut lost = Vec::new();
        for (sha256, bytes) in parts {
            let why = match tokio::time::timeout_at(until, artifacts.put(bytes)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("not stored within {} s", WITHIN.as_secs())),
            };
            let result = if why.is_none() { "stored" } else { "lost" };
            metrics.uploads.with_label_values(&[result]).inc();
            if let Some(why) = why {
                tracing::warn!(invocation_id = %id, %sha256, error = why, "an output or a full log is lost: it could not be stored");
                lost.push(Lost { sha256, why });
            }
        }
        lost
    };
    (storing, bytes)
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}

async fn digest(bytes: Bytes) -> Digest {
    if bytes.len() > HASH_HERE_MAX {
        let own = bytes.clone();
        if let Ok(digest) = tokio::task::spawn_blocking(move || Digest(Sha256::digest(&own).into())).await {
            return digest;
        }
    }
    Digest(Sha256::digest(&bytes).into())
}
