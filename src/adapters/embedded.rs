//! The embedded store: everything one node needs to be durable, in one directory and without another process.
//!
//! ```text
//! <data_dir>/lock         held while the store is open
//!            faasd.db     SQLite: records, jobs, dead letters, functions, keys, lessons (readable with `sqlite3`, but for environments)
//!            artifacts/   files named by the SHA-256 of their bytes
//!
//!  callers ──change──▶ inbox ──batch──▶ writer thread ──one commit──▶ faasd.db
//!          ──read────▶ two reader threads ──────────────────────────▶ faasd.db
//! ```
//!
//! A change is answered after the commit that holds it. Jobs that are ready and leases live in memory; whoever restarts finds
//! every job ready again.

mod abandoned;
mod artifacts;
mod cursor;
mod dead_letters;
mod errors;
mod inbox;
mod invocations;
mod jobs;
mod keys;
mod lessons;
mod lock;
pub mod metrics;
mod queue;
mod readers;
mod records;
mod registry;
mod schema;
mod sealing;
mod store;
mod sweep;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::adapters::local::bus::LocalBus;
use crate::adapters::local_vault::{self, LocalVault};
use crate::adapters::locked;
use crate::adapters::private_files::private_dir;
use crate::config::Config;
use crate::domain::ids::FunctionId;
use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::bus::Bus;
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;
use crate::ports::invocations::InvocationStore;
use crate::ports::keys::KeyStore;
use crate::ports::lessons::Lessons;
use crate::ports::queue::{DeadLetters, JobQueue};
use crate::ports::registry::Registry;
use crate::ports::vault::{Vault, VaultError};

use artifacts::Artifacts;
use invocations::Invocations;
use keys::Keys;
use lessons::LessonRows;
use metrics::Metrics;
use queue::Queue;
use registry::Functions;
use store::Store;
use sweep::Sweeper;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{holder} holds {data_dir}: stop it, or give this one another --data-dir",
        data_dir = .data_dir.display()
    )]
    Locked { data_dir: PathBuf, holder: String },
    #[error(
        "the database has schema version {found}, and this faasd knows {known} at most: start the newer faasd that wrote it"
    )]
    NewerSchema { found: usize, known: usize },
    #[error("can't {step} {path}: {cause}", path = .path.display())]
    Io { step: &'static str, path: PathBuf, cause: io::Error },
    #[error(
        "the environment of function {function}, version {version}, can't be opened: {cause}; put back the key file that the \
         data was written with (docs/operations.md, Secrets)"
    )]
    Sealed { function: FunctionId, version: u32, cause: VaultError },
    #[error(transparent)]
    Vault(#[from] local_vault::OpenError),
    #[error("can't register the store's metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("can't open the database: {0}")]
    Store(#[from] StoreError),
}

impl OpenError {
    fn io(step: &'static str, path: &Path, cause: io::Error) -> Self {
        OpenError::Io { step, path: path.to_owned(), cause }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        OpenError::Store(error.into())
    }
}

/// A data directory in the hands of one process, for a node that keeps nothing but caches in it. The directory is made if need be.
pub struct DataLock(#[allow(dead_code, reason = "held")] std::fs::File);

impl DataLock {
    /// # Errors
    /// If another process has it, or it can't be made.
    pub fn take(data_dir: &Path) -> Result<Self, OpenError> {
        private_dir(data_dir).map_err(|cause| OpenError::io("prepare the data directory", data_dir, cause))?;
        lock::lock(data_dir).map(Self)
    }
}

/// The open store: a handle for each port. The handles stay usable until [`Embedded::close`].
pub struct Embedded {
    pub invocations: Arc<dyn InvocationStore>,
    pub queue: Arc<dyn JobQueue>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub registry: Arc<dyn Registry>,
    pub keys: Arc<dyn KeyStore>,
    pub lessons: Arc<dyn Lessons>,
    pub artifacts: Arc<dyn ArtifactStore>,
    pub bus: Arc<dyn Bus>,
    store: Arc<Store>,
    sweeper: Arc<Sweeper>,
}

impl Embedded {
    /// Opens the store below `data_dir`, which is made if need be, with the keys that `config` says. Blocks: for the start of a
    /// process.
    pub fn open(data_dir: &Path, config: &Config, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let vault = Arc::new(LocalVault::open(&config.secrets, data_dir)?);
        Self::open_metered(data_dir, config, clock, vault, &prometheus::Registry::new())
    }

    /// The same, with the vault handed in, and its metrics in `metrics`.
    pub fn open_metered(
        data_dir: &Path,
        config: &Config,
        clock: Arc<dyn Clock>,
        vault: Arc<dyn Vault>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, OpenError> {
        let metrics = Metrics::new(metrics)?;
        private_dir(data_dir).map_err(|cause| OpenError::io("prepare the data directory", data_dir, cause))?;
        let lock = lock::lock(data_dir)?;
        let artifacts = Arc::new(Artifacts::open(&data_dir.join("artifacts"), clock.clone())?);
        let path = data_dir.join("faasd.db");
        let mut connection = schema::open_writer(&path, config.retention.store_bytes_max)?;
        sealing::bring_up_to_date(&mut connection, vault.as_ref())?;
        let jobs = jobs::load(&connection, clock.as_ref())?;
        let dead_letters = dead_letters::count(&connection)?;
        let keys = keys::load(&connection)?;
        let store = Arc::new(Store::start(path, connection, config, lock, dead_letters, metrics.clone())?);
        let queue = Arc::new(Queue::new(store.clone(), clock.clone(), &config.queue, jobs)?);
        let sweeper =
            Sweeper::start(store.clone(), artifacts.clone(), clock.clone(), config.retention.clone(), metrics)?;
        Ok(Self {
            invocations: Arc::new(Invocations::new(store.clone(), clock.clone())),
            queue: queue.clone(),
            dead_letters: queue,
            lessons: Arc::new(LessonRows::new(store.clone(), clock.clone())),
            registry: Arc::new(Functions::new(store.clone(), clock, vault)),
            keys: Arc::new(Keys::new(store.clone(), keys)),
            artifacts,
            bus: Arc::new(LocalBus::new()),
            store,
            sweeper: Arc::new(sweeper),
        })
    }

    /// Clears away what is over now, rather than at the next interval.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        self.sweeper.sweep_now().await
    }

    /// What is over, for a disk that fills.
    pub fn spare(&self) -> Arc<dyn Spare> {
        self.sweeper.clone()
    }

    /// Refuses new work, writes all that was accepted, folds the log into the database and gives the directory free.
    pub async fn close(&self) {
        self.sweeper.close();
        self.store.close();
        self.store.closed().await;
    }
}

impl Drop for Embedded {
    /// What was accepted is still written, by the writer on its own.
    fn drop(&mut self) {
        self.sweeper.close();
        self.store.close();
    }
}

/// Milliseconds of a duration, for a column.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
