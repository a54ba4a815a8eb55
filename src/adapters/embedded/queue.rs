//! The job queue: rows that survive, and a memory of who has what (`jobs.rs`).
//!
//! Memory follows the file: a job can be leased after the commit that holds it, and is gone after the commit that deletes it. Both
//! steps are made by the writer, so that a caller who goes away half-way leaves nothing half done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::{Notify, oneshot};

use crate::config;
use crate::domain::ids::{Digest, FunctionId, InvocationId, Owner, VersionKey};
use crate::domain::invocation::Mode;
use crate::domain::job::{Backlog, Job, Lease, LeaseToken, Payload};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::queue::{JobQueue, QueueError};

use super::errors::{damaged, stopped};
use super::jobs::{Jobs, Leased};
use super::store::Store;
use super::{dead_letters, locked, millis, records};

pub(super) struct Queue {
    pub(super) store: Arc<Store>,
    pub(super) shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    visibility: Duration,
    jobs_max: u64,
    dead_letters_max: u64,
    /// Tells the leases of this run from those of an earlier one.
    run: u64,
}

/// What the writer touches after a commit.
pub(super) struct Shared {
    jobs: Mutex<Jobs>,
    arrived: Notify,
    /// Sent, but not yet durable.
    sending: AtomicUsize,
}

impl Queue {
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        config: &config::Queue,
        jobs: Jobs,
    ) -> Result<Self, StoreError> {
        let run = getrandom::u64().map_err(|error| StoreError::Unavailable(format!("read randomness: {error}")))?;
        let shared = Shared { jobs: Mutex::new(jobs), arrived: Notify::new(), sending: AtomicUsize::new(0) };
        Ok(Self {
            store,
            shared: Arc::new(shared),
            clock,
            visibility: Duration::from_secs(config.visibility_s),
            jobs_max: config.jobs_max,
            dead_letters_max: config.dead_letters_max,
            run,
        })
    }

    fn token(&self, id: InvocationId, lease: u64) -> LeaseToken {
        LeaseToken(format!("{id}.{:x}.{lease}", self.run))
    }

    /// The job and the number of a lease of this run.
    fn parse(&self, token: &LeaseToken) -> Result<(InvocationId, u64), QueueError> {
        let mut parts = token.0.split('.');
        let id = parts.next().and_then(|id| id.parse().ok());
        let run = parts.next().and_then(|run| u64::from_str_radix(run, 16).ok());
        let lease = parts.next().and_then(|lease| lease.parse().ok());
        match (id, run, lease) {
            (Some(id), Some(run), Some(lease)) if run == self.run => Ok((id, lease)),
            _ => Err(QueueError::LeaseLost),
        }
    }

    /// Leases what is ready, and tells the next receiver if there is more.
    fn take(&self, max: usize, per_owner_max: usize) -> (Vec<Leased>, Option<Duration>) {
        let mut jobs = locked(&self.shared.jobs);
        let leased = jobs.lease(max, per_owner_max, self.clock.monotonic(), self.visibility);
        if !leased.is_empty() && jobs.has_ready() {
            self.shared.arrived.notify_one();
        }
        (leased, jobs.next_due())
    }

    fn take_back(&self, leases: &[(InvocationId, u64)]) {
        let now = self.clock.monotonic();
        let mut jobs = locked(&self.shared.jobs);
        for (id, lease) in leases {
            jobs.take_back(*id, *lease, now);
        }
    }

    async fn deliver(&self, leased: Vec<Leased>) -> Result<Vec<Lease>, StoreError> {
        self.count_attempts(&leased)?;
        let absent: Vec<InvocationId> = leased.iter().filter(|one| one.job.is_none()).map(|one| one.id).collect();
        let mut read = match absent.is_empty() {
            true => Vec::new(),
            false => self.store.read(move |connection| load_jobs(connection, &absent)).await?,
        }
        .into_iter();
        let mut leases = Vec::with_capacity(leased.len());
        for one in leased {
            let job = match one.job {
                Some(job) => Arc::unwrap_or_clone(job),
                None => match read.next().flatten() {
                    Some(job) => job,
                    None => {
                        tracing::error!(invocation_id = %one.id, "a leased job is not in the store");
                        continue;
                    }
                },
            };
            let token = self.token(one.id, one.lease);
            leases.push(Lease { token, job, attempt: one.attempt, valid_for: self.visibility });
        }
        Ok(leases)
    }

    /// A job that takes the process down with it must not do so for ever, so attempts are written as they begin. Nobody waits for
    /// it: whatever the holder stores about the attempt is stored after this.
    fn count_attempts(&self, leased: &[Leased]) -> Result<(), StoreError> {
        let attempts: Vec<(InvocationId, u32)> = leased.iter().map(|one| (one.id, one.attempt)).collect();
        self.store.submit_soon(
            move |connection| {
                let mut statement = connection.prepare_cached("UPDATE jobs SET attempts = ?2 WHERE id = ?1")?;
                for (id, attempts) in &attempts {
                    statement.execute(params![id.0.as_bytes(), attempts])?;
                }
                Ok(())
            },
            |counted| {
                if let Err(error) = counted {
                    tracing::warn!(%error, "attempts of leased jobs could not be written");
                }
            },
        )
    }

    /// Writes the holder's last word: `decide` in the file, then `done` in memory.
    async fn settle<D, M>(&self, token: &LeaseToken, decide: D, done: M) -> Result<(), QueueError>
    where
        D: FnOnce(InvocationId, u32) -> Decide,
        M: FnOnce(&Shared, InvocationId, u32) + Send + 'static,
    {
        let (id, lease) = self.parse(token)?;
        let attempts = locked(&self.shared.jobs).settle(id, lease, self.clock.monotonic());
        let attempts = attempts.ok_or(QueueError::LeaseLost)?;
        let (sender, receiver) = oneshot::channel();
        let shared = self.shared.clone();
        let submitted = self.store.submit(decide(id, attempts), move |committed| {
            match &committed {
                Ok(()) => done(&shared, id, attempts),
                Err(_) => locked(&shared.jobs).unsettle(id),
            }
            let _ = sender.send(committed);
        });
        if let Err(error) = submitted {
            locked(&self.shared.jobs).unsettle(id);
            return Err(error.into());
        }
        Ok(receiver.await.map_err(|_| stopped())??)
    }
}

type Decide = Box<dyn Fn(&Connection) -> Result<(), StoreError> + Send>;

#[async_trait]
impl JobQueue for Queue {
    async fn send(&self, job: Job, delay: Duration) -> Result<(), StoreError> {
        let id = job.invocation;
        {
            let jobs = locked(&self.shared.jobs);
            if jobs.contains(id) {
                return Ok(());
            }
            let queued = jobs.len() + self.shared.sending.load(Ordering::Relaxed);
            if queued as u64 >= self.jobs_max {
                return Err(StoreError::Full(format!("{} jobs are queued", self.jobs_max)));
            }
            self.shared.sending.fetch_add(1, Ordering::Relaxed);
        }
        let job = Arc::new(job);
        let (row, shared, clock) = (job.clone(), self.shared.clone(), self.clock.clone());
        let available_at = self.clock.now().after(delay);
        let due = self.clock.monotonic().saturating_add(delay);
        let (sender, receiver) = oneshot::channel();
        let submitted = self.store.submit(
            move |connection| insert_job(connection, &row, available_at),
            move |committed| {
                shared.sending.fetch_sub(1, Ordering::Relaxed);
                if let Ok(true) = committed {
                    let owner = job.owner.clone();
                    locked(&shared.jobs).add(id, &owner, Some(job), 0, due, clock.monotonic());
                    shared.announce(delay);
                }
                let _ = sender.send(committed);
            },
        );
        if let Err(error) = submitted {
            self.shared.sending.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        receiver.await.map_err(|_| stopped())?.map(|_| ())
    }

    async fn receive(&self, max: usize, per_owner_max: usize, wait: Duration) -> Result<Vec<Lease>, StoreError> {
        let deadline = self.clock.monotonic().saturating_add(wait);
        loop {
            let mut arrived = std::pin::pin!(self.shared.arrived.notified());
            // Registered before looking, so that what comes in between is heard.
            arrived.as_mut().enable();
            let (leased, next_due) = self.take(max, per_owner_max);
            if !leased.is_empty() {
                let names: Vec<_> = leased.iter().map(|one| (one.id, one.lease)).collect();
                let delivered = self.deliver(leased).await;
                if delivered.is_err() {
                    self.take_back(&names);
                }
                return delivered;
            }
            let now = self.clock.monotonic();
            if now >= deadline || max == 0 {
                return Ok(Vec::new());
            }
            let until = next_due.map_or(deadline, |due| due.min(deadline));
            // Either way it looks again.
            let _ = tokio::time::timeout(until.saturating_sub(now), arrived).await;
        }
    }

    async fn extend(&self, token: &LeaseToken, valid_for: Duration) -> Result<(), QueueError> {
        let (id, lease) = self.parse(token)?;
        match locked(&self.shared.jobs).extend(id, lease, self.clock.monotonic(), valid_for) {
            true => Ok(()),
            false => Err(QueueError::LeaseLost),
        }
    }

    async fn acknowledge(&self, token: &LeaseToken) -> Result<(), QueueError> {
        let decide = |id, _| -> Decide { Box::new(move |connection| delete_job(connection, id)) };
        self.settle(token, decide, |shared, id, _| shared.remove(id)).await
    }

    async fn give_back(&self, token: &LeaseToken, delay: Duration, counted: bool) -> Result<(), QueueError> {
        let uncounted = u32::from(!counted);
        let available_at = self.clock.now().after(delay);
        let due = self.clock.monotonic().saturating_add(delay);
        let clock = self.clock.clone();
        let decide = |id: InvocationId, attempts: u32| -> Decide {
            Box::new(move |connection| {
                let mut statement =
                    connection.prepare_cached("UPDATE jobs SET attempts = ?2, available_at = ?3 WHERE id = ?1")?;
                let at = millis(Duration::from_millis(available_at.as_millis()));
                statement.execute(params![id.0.as_bytes(), attempts - uncounted, at])?;
                Ok(())
            })
        };
        let done = move |shared: &Shared, id, attempts: u32| {
            locked(&shared.jobs).release(id, attempts - uncounted, due, clock.monotonic());
            shared.announce(delay);
        };
        self.settle(token, decide, done).await
    }

    async fn bury(&self, token: &LeaseToken, reason: &str) -> Result<(), QueueError> {
        let (died_at, reason) = (self.clock.now(), reason.to_owned());
        let (store, max) = (self.store.clone(), self.dead_letters_max);
        let decide = |id, attempts| -> Decide {
            Box::new(move |connection| {
                dead_letters::insert(connection, id, attempts, &reason, died_at)?;
                delete_job(connection, id)?;
                // Letters of the same commit are not counted yet; the next one drops what is over then.
                let over = (store.dead_letters.load(Ordering::Relaxed) + 1).saturating_sub(max);
                dead_letters::drop_oldest(connection, over)
            })
        };
        let store = self.store.clone();
        let done = move |shared: &Shared, id, _| {
            let letters = store.dead_letters.load(Ordering::Relaxed) + 1;
            store.dead_letters.store(letters.min(max), Ordering::Relaxed);
            shared.remove(id);
        };
        self.settle(token, decide, done).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let waiting = locked(&self.shared.jobs).backlog(self.clock.monotonic());
        Ok(Backlog { dead: self.store.dead_letters.load(Ordering::Relaxed), ..waiting })
    }
}

impl Shared {
    /// A job is done: another of its owner's may be leased now.
    fn remove(&self, id: InvocationId) {
        let mut jobs = locked(&self.jobs);
        jobs.remove(id);
        if jobs.has_ready() {
            self.arrived.notify_one();
        }
    }

    /// A job was added or given back.
    fn announce(&self, delay: Duration) {
        if delay.is_zero() {
            self.arrived.notify_one();
        } else {
            // Every receiver works out anew until when it sleeps.
            self.arrived.notify_waiters();
        }
    }
}

/// `false`: it is queued already.
fn insert_job(connection: &Connection, job: &Job, available_at: Timestamp) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO jobs (id, owner, function, version, payload, digest, model, accepted_at, available_at, attempts, mode)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10) ON CONFLICT (id) DO NOTHING",
    )?;
    let (payload, digest) = match &job.payload {
        Payload::Inline(bytes) => (Some(&bytes[..]), None),
        Payload::Stored(digest) => (None, Some(digest.0)),
    };
    let inserted = statement.execute(params![
        job.invocation.0.as_bytes(),
        &*job.owner.0,
        job.version.function.0.as_bytes(),
        job.version.number,
        payload,
        digest,
        job.model_id,
        job.accepted_at.as_millis() as i64,
        millis(Duration::from_millis(available_at.as_millis())),
        records::mode_str(job.mode),
    ])?;
    Ok(inserted > 0)
}

fn delete_job(connection: &Connection, id: InvocationId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id.0.as_bytes()])?;
    Ok(())
}

/// In the order of `ids`.
fn load_jobs(connection: &Connection, ids: &[InvocationId]) -> Result<Vec<Option<Job>>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, owner, function, version, payload, digest, model, accepted_at, mode FROM jobs WHERE id = ?1",
    )?;
    let read = |row: &Row<'_>| Ok(read_job(row, records::mode_of(row.get_ref(8)?)));
    ids.iter().map(|id| statement.query_row([id.0.as_bytes()], read).optional()?.transpose()).collect()
}

/// Reads a row that begins with `id, owner, function, version, payload, digest, model, accepted_at`.
pub(super) fn read_job(row: &Row<'_>, mode: Mode) -> Result<Job, StoreError> {
    let payload = match (row.get::<_, Option<Vec<u8>>>(4)?, row.get::<_, Option<[u8; 32]>>(5)?) {
        (Some(bytes), None) => Payload::Inline(Bytes::from(bytes)),
        (None, Some(digest)) => Payload::Stored(Digest(digest)),
        _ => return Err(damaged("read a job", "it has no payload, or two")),
    };
    Ok(Job {
        invocation: InvocationId(uuid::Uuid::from_bytes(row.get(0)?)),
        owner: Owner(row.get(1)?),
        version: VersionKey { function: FunctionId(uuid::Uuid::from_bytes(row.get(2)?)), number: row.get(3)? },
        payload,
        model_id: row.get(6)?,
        accepted_at: Timestamp(row.get(7)?),
        mode,
    })
}
