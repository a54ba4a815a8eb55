//! The stores in memory, as small as their contracts allow.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::audit::{Entry, Recorded};
use crate::domain::disk::Room;
use crate::domain::function::{Function, Version};
use crate::domain::ids::*;
use crate::domain::invocation::{Mode, StoredRecord};
use crate::domain::job::{Backlog, DeadLetter, Job, Lease, LeaseToken};
use crate::domain::key::Key;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::{ArtifactError, ArtifactStore};
use crate::ports::audit::{AuditLog, Durability};
use crate::ports::disk::Disk;
use crate::ports::invocations::{Created, Idempotency, InvocationStore, Lookup, RecordQuery};
use crate::ports::keys::KeyStore;
use crate::ports::queue::{DeadLetters, JobQueue, QueueError};
use crate::ports::registry::{Registry, RegistryError};

type Versioned = (Function, Vec<Arc<Version>>);
type KeyUse = (Owner, FunctionId, String);

/// One fake for all the stores: what they hold, by what it is found by.
#[derive(Default)]
pub struct World {
    functions: Mutex<HashMap<FunctionId, Versioned>>,
    pub records: Mutex<BTreeMap<InvocationId, Arc<StoredRecord>>>,
    idempotency: Mutex<HashMap<KeyUse, (Digest, InvocationId)>>,
    pub jobs: Mutex<Vec<Job>>,
    pub letters: Mutex<BTreeMap<InvocationId, DeadLetter>>,
    artifacts: Mutex<HashMap<Digest, Bytes>>,
    keys: Mutex<Vec<Key>>,
    pub entries: Mutex<Vec<Entry>>,
    /// Whether the audit log says that it can't be written.
    pub audit_broken: AtomicBool,
    /// Whether the disk is full.
    pub disk_full: AtomicBool,
    /// Reads of the registry, to see that there is a cache.
    pub registry_reads: AtomicUsize,
}

impl Disk for World {
    fn room(&self) -> Room {
        if self.disk_full.load(Ordering::SeqCst) { Room::Full } else { Room::Ample }
    }
}

#[async_trait]
impl Registry for World {
    async fn create(&self, function: &Function, version: &Version) -> Result<(), RegistryError> {
        let mut functions = self.functions.lock().unwrap();
        if functions.values().any(|(other, _)| other.owner == function.owner && other.name == function.name) {
            return Err(RegistryError::NameTaken);
        }
        functions.insert(function.id, (function.clone(), vec![Arc::new(version.clone())]));
        Ok(())
    }

    async fn publish(&self, version: &Version) -> Result<Function, RegistryError> {
        let mut functions = self.functions.lock().unwrap();
        let (function, versions) = functions.get_mut(&version.function_id).ok_or(RegistryError::NotFound)?;
        if version.number != function.current + 1 {
            return Err(RegistryError::Conflict);
        }
        function.current = version.number;
        function.updated_at = version.created_at;
        versions.push(Arc::new(version.clone()));
        Ok(function.clone())
    }

    async fn function(&self, id: FunctionId) -> Result<Option<Function>, StoreError> {
        self.registry_reads.fetch_add(1, Ordering::Relaxed);
        Ok(self.functions.lock().unwrap().get(&id).map(|(function, _)| function.clone()))
    }

    async fn function_named(&self, owner: &Owner, name: &str) -> Result<Option<Function>, StoreError> {
        self.registry_reads.fetch_add(1, Ordering::Relaxed);
        let functions = self.functions.lock().unwrap();
        Ok(functions.values().map(|(f, _)| f).find(|f| f.owner == *owner && &*f.name == name).cloned())
    }

    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError> {
        let functions = self.functions.lock().unwrap();
        Ok(functions.get(&key.function).and_then(|(_, all)| all.iter().find(|v| v.number == key.number)).cloned())
    }

    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<(Function, Arc<Version>)>, StoreError> {
        let functions = self.functions.lock().unwrap();
        let mut all: Vec<_> = functions.values().filter(|(f, _)| owner.is_none_or(|owner| f.owner == *owner)).collect();
        all.sort_by_key(|(f, _)| f.name.clone());
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let items: Vec<_> =
            all.iter().skip(from).take(limit).map(|(f, v)| (f.clone(), v[v.len() - 1].clone())).collect();
        let next = from + items.len();
        Ok(Page { items, next_cursor: (next < all.len()).then(|| next.to_string()) })
    }

    async fn count(&self, owner: Option<&Owner>) -> Result<u64, StoreError> {
        let functions = self.functions.lock().unwrap();
        Ok(functions.values().filter(|(f, _)| owner.is_none_or(|owner| f.owner == *owner)).count() as u64)
    }

    async fn versions(&self, id: FunctionId, limit: usize) -> Result<Vec<Arc<Version>>, StoreError> {
        let functions = self.functions.lock().unwrap();
        Ok(functions.get(&id).map(|(_, all)| all.iter().rev().take(limit).cloned().collect()).unwrap_or_default())
    }

    async fn delete(&self, id: FunctionId) -> Result<(), RegistryError> {
        self.functions.lock().unwrap().remove(&id).map(drop).ok_or(RegistryError::NotFound)
    }
}

#[async_trait]
impl InvocationStore for World {
    async fn create(&self, record: StoredRecord, idempotency: Option<Idempotency>) -> Result<Created, StoreError> {
        let id = record.record.request_id;
        if let Some(with) = idempotency {
            let mut keys = self.idempotency.lock().unwrap();
            match keys.get(&(with.owner.clone(), with.function, with.key.clone())) {
                Some((request, id)) if *request == with.request => return Ok(Created::Existing(*id)),
                Some(_) => return Ok(Created::KeyReused),
                None => keys.insert((with.owner, with.function, with.key), (with.request, id)),
            };
        }
        self.records.lock().unwrap().insert(id, Arc::new(record));
        Ok(Created::New)
    }

    async fn start(&self, id: InvocationId, attempt: u32, worker: WorkerId, at: Timestamp) -> Result<bool, StoreError> {
        let mut records = self.records.lock().unwrap();
        let Some(stored) = records.get_mut(&id) else { return Ok(false) };
        if stored.record.status.is_final() || stored.record.attempt > attempt {
            return Ok(false);
        }
        Arc::make_mut(stored).record.start(attempt, worker, at);
        Ok(true)
    }

    async fn finish(&self, record: Arc<StoredRecord>) -> Result<bool, StoreError> {
        let mut records = self.records.lock().unwrap();
        let id = record.record.request_id;
        let refused =
            |old: &Arc<StoredRecord>| old.record.status.is_final() || old.record.attempt > record.record.attempt;
        if records.get(&id).is_some_and(refused) {
            return Ok(false);
        }
        records.insert(id, record);
        Ok(true)
    }

    fn finish_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        self.records.lock().unwrap().insert(record.record.request_id, record);
        Ok(())
    }

    async fn get(&self, id: InvocationId) -> Result<Lookup, StoreError> {
        if id == expired_id() {
            return Ok(Lookup::Expired { owner: Owner::new("ann"), function: FunctionId(Uuid::nil()) });
        }
        Ok(self.records.lock().unwrap().get(&id).cloned().map_or(Lookup::Unknown, Lookup::Found))
    }

    async fn list(&self, query: &RecordQuery) -> Result<Page<Arc<StoredRecord>>, StoreError> {
        let records = self.records.lock().unwrap();
        let wanted = |stored: &&Arc<StoredRecord>| {
            query.invocation.is_none_or(|id| stored.record.request_id == id)
                && query.owner.as_ref().is_none_or(|owner| stored.owner == *owner)
                && query.function.is_none_or(|function| stored.record.function_id == function)
                && query.status.is_none_or(|status| stored.record.status == status)
        };
        let items = records.values().rev().filter(wanted).take(query.limit).cloned().collect();
        Ok(Page { items, next_cursor: None })
    }

    async fn waited_for(&self, until: Timestamp, max: usize) -> Result<Vec<Arc<StoredRecord>>, StoreError> {
        let records = self.records.lock().unwrap();
        let open = records.values().filter(|stored| {
            stored.mode == Mode::Sync && !stored.record.status.is_final() && stored.record.created_at <= until
        });
        Ok(open.take(max).cloned().collect())
    }
}

pub fn expired_id() -> InvocationId {
    InvocationId(Uuid::from_u128(410))
}

#[async_trait]
impl JobQueue for World {
    async fn send(&self, job: Job, _delay: Duration) -> Result<(), StoreError> {
        let mut jobs = self.jobs.lock().unwrap();
        if !jobs.iter().any(|other| other.invocation == job.invocation) {
            jobs.push(job);
        }
        Ok(())
    }

    async fn receive(&self, _max: usize, _per_owner_max: usize, _wait: Duration) -> Result<Vec<Lease>, StoreError> {
        Ok(Vec::new())
    }

    async fn extend(&self, _token: &LeaseToken, _valid_for: Duration) -> Result<(), QueueError> {
        Err(QueueError::LeaseLost)
    }

    async fn acknowledge(&self, _token: &LeaseToken) -> Result<(), QueueError> {
        Err(QueueError::LeaseLost)
    }

    async fn give_back(&self, _token: &LeaseToken, _delay: Duration, _counted: bool) -> Result<(), QueueError> {
        Err(QueueError::LeaseLost)
    }

    async fn bury(&self, _token: &LeaseToken, _reason: &str) -> Result<(), QueueError> {
        Err(QueueError::LeaseLost)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        Ok(Backlog { ready: self.jobs.lock().unwrap().len() as u64, ..Backlog::default() })
    }
}

#[async_trait]
impl DeadLetters for World {
    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        _cursor: Option<&str>,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let letters = self.letters.lock().unwrap();
        let seen = letters.values().rev().filter(|letter| owner.is_none_or(|owner| letter.job.owner == *owner));
        Ok(Page { items: seen.take(limit).cloned().collect(), next_cursor: None })
    }

    async fn get(&self, id: InvocationId) -> Result<Option<DeadLetter>, StoreError> {
        Ok(self.letters.lock().unwrap().get(&id).cloned())
    }

    async fn remove(&self, id: InvocationId) -> Result<bool, StoreError> {
        Ok(self.letters.lock().unwrap().remove(&id).is_some())
    }
}

#[async_trait]
impl ArtifactStore for World {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = Digest(Sha256::digest(&bytes).into());
        self.artifacts.lock().unwrap().insert(digest, bytes);
        Ok(digest)
    }

    async fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError> {
        self.artifacts.lock().unwrap().get(&digest).cloned().ok_or(ArtifactError::NotFound)
    }

    async fn touch(&self, digest: Digest) -> Result<bool, StoreError> {
        Ok(self.artifacts.lock().unwrap().contains_key(&digest))
    }
}

#[async_trait]
impl KeyStore for World {
    async fn add(&self, key: &Key) -> Result<(), StoreError> {
        self.keys.lock().unwrap().push(key.clone());
        Ok(())
    }

    async fn add_first(&self, key: &Key) -> Result<bool, StoreError> {
        let mut keys = self.keys.lock().unwrap();
        let is_first = keys.is_empty();
        if is_first {
            keys.push(key.clone());
        }
        Ok(is_first)
    }

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(self.keys.lock().unwrap().iter().find(|key| key.secret_sha256 == *sha256).cloned())
    }

    async fn list(&self) -> Result<Vec<Key>, StoreError> {
        Ok(self.keys.lock().unwrap().clone())
    }

    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError> {
        let mut keys = self.keys.lock().unwrap();
        let before = keys.len();
        keys.retain(|key| key.id != id);
        Ok(keys.len() < before)
    }

    async fn revoke_of(&self, function: FunctionId) -> Result<Vec<KeyId>, StoreError> {
        let mut keys = self.keys.lock().unwrap();
        let (gone, kept) = keys.drain(..).partition(|key| key.function == Some(function));
        *keys = kept;
        let gone: Vec<Key> = gone;
        Ok(gone.into_iter().map(|key| key.id).collect())
    }

    fn used(&self, id: KeyId, at: Timestamp) {
        if let Some(key) = self.keys.lock().unwrap().iter_mut().find(|key| key.id == id) {
            key.last_used_at = Some(at);
        }
    }
}

#[async_trait]
impl AuditLog for World {
    async fn ready(&self) -> Result<(), StoreError> {
        match self.audit_broken.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("the disk is full".into())),
            false => Ok(()),
        }
    }

    async fn append(&self, entry: Entry, _durability: Durability) -> Result<(), StoreError> {
        self.entries.lock().unwrap().push(entry);
        Ok(())
    }

    async fn list(&self, limit: usize, _cursor: Option<&str>) -> Result<Page<Recorded>, StoreError> {
        let entries = self.entries.lock().unwrap();
        let mut items: Vec<_> =
            entries.iter().zip(1..).map(|(entry, seq)| Recorded { seq, entry: entry.clone() }).collect();
        items.reverse();
        items.truncate(limit);
        Ok(Page { items, next_cursor: None })
    }
}
