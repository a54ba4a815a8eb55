//! Registry, artifacts, records, queue and bus in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::domain::env::Env;
use crate::domain::function::{Function, Runtime, Version};
use crate::domain::ids::*;
use crate::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use crate::domain::job::{Backlog, Job, Lease, LeaseToken, Payload};
use crate::domain::page::Page;
use crate::domain::policy::learned::Lesson;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};
use crate::ports::bus::{Bus, News, Subscription};
use crate::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};
use crate::ports::lessons::Lessons;
use crate::ports::queue::{JobQueue, QueueError};
use crate::ports::registry::{Registry, RegistryError};

/// Registry, artifacts, records, queue and bus of one worker.
pub struct World {
    pub versions: Mutex<HashMap<VersionKey, Arc<Version>>>,
    pub artifacts: Mutex<HashMap<Digest, Bytes>>,
    pub records: Mutex<BTreeMap<InvocationId, Arc<StoredRecord>>>,
    pub jobs: Mutex<VecDeque<(Job, u32, Instant)>>,
    pub leased: Mutex<HashMap<LeaseToken, (Job, u32)>>,
    /// Jobs that nobody came to an end with, and their attempts.
    pub put_aside: Mutex<VecDeque<(Job, u32)>>,
    pub buried: Mutex<Vec<(InvocationId, String)>>,
    pub given_back: Mutex<Vec<(Duration, bool)>>,
    pub extended: AtomicUsize,
    /// Leases are lost at their next extension.
    pub robbed: AtomicBool,
    /// The queue does not answer how much there is.
    pub silent: AtomicBool,
    pub finished: Mutex<Vec<InvocationId>>,
    pub lessons: Mutex<Vec<Lesson>>,
    /// The artifact store is far.
    pub far: AtomicBool,
    /// Artifacts are stored while this is free.
    pub way: tokio::sync::Mutex<()>,
    /// Artifacts that still arrive; then no more.
    pub arrive: AtomicUsize,
    news: broadcast::Sender<News>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            versions: Mutex::default(),
            artifacts: Mutex::default(),
            records: Mutex::default(),
            jobs: Mutex::default(),
            leased: Mutex::default(),
            put_aside: Mutex::default(),
            buried: Mutex::default(),
            given_back: Mutex::default(),
            extended: AtomicUsize::new(0),
            robbed: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            finished: Mutex::default(),
            lessons: Mutex::default(),
            far: AtomicBool::new(false),
            way: tokio::sync::Mutex::default(),
            arrive: AtomicUsize::new(usize::MAX),
            news: broadcast::Sender::new(16),
        })
    }

    pub fn deploy(&self, name: &str, runtime: Runtime, timeout_ms: u64) -> Arc<Version> {
        let n = self.versions.lock().unwrap().len() as u8 + 1;
        let version = Arc::new(Version {
            function_id: FunctionId(Uuid::from_u128(n.into())),
            number: 1,
            owner: Owner::new("o"),
            function_name: name.into(),
            description: String::new(),
            runtime,
            handler: None,
            memory_mb: 128,
            auto_memory: false,
            timeout_ms,
            env: Env::default(),
            code: Digest([n; 32]),
            code_bytes: 1,
            created_at: Timestamp(0),
        });
        self.artifacts.lock().unwrap().insert(version.code, Bytes::from_static(b"zip"));
        self.versions.lock().unwrap().insert(version.key(), version.clone());
        version
    }

    pub fn enqueue(&self, version: &Arc<Version>, program: &str) -> InvocationId {
        self.enqueue_as(version, program, Mode::Async)
    }

    pub fn enqueue_as(&self, version: &Arc<Version>, program: &str, mode: Mode) -> InvocationId {
        let id = InvocationId(Uuid::now_v7());
        let payload = Bytes::from(format!("\"{program}\""));
        let invocation = Invocation {
            id,
            version: version.clone(),
            payload: payload.clone(),
            model_id: None,
            attempt: 1,
            accepted_at: Timestamp(1_700_000_000_000),
            mode,
        };
        let record = StoredRecord::new(version.owner.clone(), mode, Record::queued(&invocation));
        self.records.lock().unwrap().insert(id, Arc::new(record));
        let job = Job {
            invocation: id,
            owner: version.owner.clone(),
            version: version.key(),
            payload: Payload::Inline(payload),
            model_id: None,
            accepted_at: invocation.accepted_at,
            mode,
        };
        self.jobs.lock().unwrap().push_back((job, 0, Instant::now()));
        id
    }

    pub fn record(&self, id: InvocationId) -> Record {
        self.records.lock().unwrap()[&id].record.clone()
    }

    fn pop(&self, max: usize, per_owner_max: usize) -> Vec<Lease> {
        let (mut jobs, now) = (self.jobs.lock().unwrap(), Instant::now());
        let leased = |job: &Job| self.leased.lock().unwrap().values().filter(|(of, _)| of.owner == job.owner).count();
        let mut leases = Vec::new();
        while leases.len() < max
            && let Some(at) = jobs.iter().position(|(job, _, ready)| *ready <= now && leased(job) < per_owner_max)
        {
            let (job, attempts, _) = jobs.remove(at).unwrap();
            let attempt = attempts + 1;
            let token = LeaseToken(format!("{}-{attempt}", job.invocation));
            self.leased.lock().unwrap().insert(token.clone(), (job.clone(), attempt));
            leases.push(Lease { token, job, attempt, valid_for: Duration::from_secs(30) });
        }
        leases
    }

    fn take(&self, token: &LeaseToken) -> Result<(Job, u32), QueueError> {
        self.leased.lock().unwrap().remove(token).ok_or(QueueError::LeaseLost)
    }
}

#[async_trait]
impl JobQueue for World {
    async fn send(&self, _: Job, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn receive(&self, max: usize, per_owner_max: usize, wait: Duration) -> Result<Vec<Lease>, StoreError> {
        let until = Instant::now() + wait;
        loop {
            let leases = self.pop(max, per_owner_max);
            if !leases.is_empty() || Instant::now() >= until {
                return Ok(leases);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn given_up(&self, max: usize) -> Result<Vec<Lease>, StoreError> {
        let mut put_aside = self.put_aside.lock().unwrap();
        let count = max.min(put_aside.len());
        let lease = |(job, attempt): (Job, u32)| {
            let token = LeaseToken(format!("{}-{attempt}", job.invocation));
            self.leased.lock().unwrap().insert(token.clone(), (job.clone(), attempt));
            Lease { token, job, attempt, valid_for: Duration::from_secs(30) }
        };
        Ok(put_aside.drain(..count).map(lease).collect())
    }

    async fn extend(&self, token: &LeaseToken, _: Duration) -> Result<(), QueueError> {
        if self.robbed.load(Ordering::SeqCst) {
            self.leased.lock().unwrap().remove(token);
            return Err(QueueError::LeaseLost);
        }
        self.extended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn acknowledge(&self, token: &LeaseToken) -> Result<(), QueueError> {
        self.take(token).map(drop)
    }

    async fn give_back(&self, token: &LeaseToken, delay: Duration, counted: bool) -> Result<(), QueueError> {
        let (job, attempt) = self.take(token)?;
        self.given_back.lock().unwrap().push((delay, counted));
        let attempts = attempt - u32::from(!counted);
        self.jobs.lock().unwrap().push_back((job, attempts, Instant::now() + delay));
        Ok(())
    }

    async fn bury(&self, token: &LeaseToken, reason: &str) -> Result<(), QueueError> {
        let (job, _) = self.take(token)?;
        self.buried.lock().unwrap().push((job.invocation, reason.to_owned()));
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("silence".to_owned()));
        }
        Ok(Backlog::default())
    }
}

#[async_trait]
impl InvocationStore for World {
    async fn create(&self, _: StoredRecord, _: Option<Idempotency>) -> Result<Created, StoreError> {
        Ok(Created::New)
    }

    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError> {
        let mut records = self.records.lock().unwrap();
        let record = Arc::make_mut(records.get_mut(&id).unwrap());
        let allowed = !record.record.status.is_final() && record.record.attempt <= attempt;
        if allowed {
            record.record.start(attempt, worker, at);
        }
        Ok(allowed)
    }

    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError> {
        let mut records = self.records.lock().unwrap();
        let stored = records.get(&record.record.request_id);
        if stored.is_some_and(|s| s.record.status.is_final() || s.record.attempt > record.record.attempt) {
            return Ok(false);
        }
        records.insert(record.record.request_id, record);
        Ok(true)
    }

    fn finish_behind(&self, _: Arc<StoredRecord>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError> {
        Ok(self.records.lock().unwrap().get(&id).map_or(Lookup::Unknown, |record| Lookup::Found(record.clone())))
    }

    async fn list(&self, _: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
        Ok(Page { items: vec![], next_cursor: None })
    }
}

#[async_trait]
impl ArtifactStore for World {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let _way = self.way.lock().await;
        if self.arrive.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            return Err(StoreError::Unavailable("full".to_owned()));
        }
        let digest = Digest(Sha256::digest(&bytes).into());
        self.artifacts.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    fn is_far(&self) -> bool {
        self.far.load(Ordering::SeqCst)
    }

    async fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        self.artifacts.lock().unwrap().get(&digest).cloned().ok_or(ArtifactError::NotFound)
    }

    async fn touch(&self, _: Digest) -> Result<bool, StoreError> {
        Ok(true)
    }
}

#[async_trait]
impl Registry for World {
    async fn create(&self, _: &Function, _: &Version) -> Result<(), RegistryError> {
        Ok(())
    }
    async fn publish(&self, _: &Version) -> Result<Function, RegistryError> {
        Err(RegistryError::NotFound)
    }
    async fn function(&self, _: FunctionId) -> Result<Option<Function>, StoreError> {
        Ok(None)
    }
    async fn function_named(&self, _: &Owner, _: &str) -> Result<Option<Function>, StoreError> {
        Ok(None)
    }
    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError> {
        Ok(self.versions.lock().unwrap().get(&key).cloned())
    }
    async fn list(
        &self,
        _: Option<&Owner>,
        _: usize,
        _: Option<&str>,
    ) -> Result<Page<(Function, Arc<Version>)>, StoreError> {
        Ok(Page { items: vec![], next_cursor: None })
    }
    async fn count(&self, _: Option<&Owner>) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn versions(&self, _: FunctionId, _: usize) -> Result<Vec<Arc<Version>>, StoreError> {
        Ok(vec![])
    }
    async fn delete(&self, _: FunctionId) -> Result<(), RegistryError> {
        Ok(())
    }
}

#[async_trait]
impl Lessons for World {
    async fn load(&self) -> Result<Vec<Lesson>, StoreError> {
        Ok(self.lessons.lock().unwrap().clone())
    }
    async fn save(&self, lessons: Vec<Lesson>) -> Result<(), StoreError> {
        let mut all = self.lessons.lock().unwrap();
        all.retain(|old| !lessons.iter().any(|new| (new.function, new.version) == (old.function, old.version)));
        all.extend(lessons);
        Ok(())
    }
}

struct FakeSubscription(broadcast::Receiver<News>);

#[async_trait]
impl Subscription for FakeSubscription {
    async fn next(&mut self) -> Option<News> {
        self.0.recv().await.ok()
    }
}

impl Bus for World {
    fn publish(&self, news: News) {
        if let News::Finished(id) = news {
            self.finished.lock().unwrap().push(id);
        }
        let _ = self.news.send(news);
    }

    fn subscribe(&self) -> Box<dyn Subscription> {
        Box::new(FakeSubscription(self.news.subscribe()))
    }
}
