//! The embedded store as a world, and what is promised of it alone: its directory, its lock, its file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faasd::adapters::embedded::{Embedded, OpenError};
use faasd::adapters::system_clock::SystemClock;
use faasd::config::Config;
use faasd::domain::ids::{Digest, InvocationId};
use faasd::domain::job::Job;
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use faasd::ports::artifacts::ArtifactStore;
use faasd::ports::clock::Clock as _;
use faasd::ports::invocations::{InvocationStore, Lookup, RecordQuery};
use faasd::ports::keys::KeyStore;
use faasd::ports::lessons::Lessons;
use faasd::ports::queue::{DeadLetters, JobQueue};
use faasd::ports::registry::Registry;

use super::clock::ShiftedClock;
use super::samples;
use super::world::World;

pub struct EmbeddedWorld {
    dir: tempfile::TempDir,
    clock: Arc<ShiftedClock>,
    config: Config,
    /// Dropped after its directory was copied, so that nothing of its orderly end is in the copy.
    store: Mutex<Option<Embedded>>,
    handles: Handles,
}

struct Handles {
    queue: Arc<dyn JobQueue>,
    dead_letters: Arc<dyn DeadLetters>,
    invocations: Arc<dyn InvocationStore>,
    registry: Arc<dyn Registry>,
    keys: Arc<dyn KeyStore>,
    lessons: Arc<dyn Lessons>,
    artifacts: Arc<dyn ArtifactStore>,
}

impl EmbeddedWorld {
    fn open_in(dir: tempfile::TempDir, clock: Arc<ShiftedClock>, config: Config) -> Self {
        let store = Embedded::open(dir.path(), &config, clock.clone()).unwrap();
        let handles = Handles {
            queue: store.queue.clone(),
            dead_letters: store.dead_letters.clone(),
            invocations: store.invocations.clone(),
            registry: store.registry.clone(),
            keys: store.keys.clone(),
            lessons: store.lessons.clone(),
            artifacts: store.artifacts.clone(),
        };
        Self { dir, clock, config, store: Mutex::new(Some(store)), handles }
    }
}

impl World for EmbeddedWorld {
    async fn open(config: Config) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), ShiftedClock::new(), config)
    }

    /// The files as they are now, without what an orderly end would add to them.
    async fn killed(self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        copy_files(self.dir.path(), copy.path());
        Self::open_in(copy, self.clock.clone(), self.config.clone())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    async fn sweep(&self) {
        let store = self.store.lock().unwrap().take().unwrap();
        store.sweep().await.unwrap();
        *self.store.lock().unwrap() = Some(store);
    }

    fn damage(&self, artifact: Digest) {
        let name = artifact.to_string();
        let path = self.dir.path().join("artifacts").join(&name[..2]).join(&name[2..]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
    }

    fn rest(&self) -> &EmbeddedWorld {
        self
    }

    fn queue(&self) -> Arc<dyn JobQueue> {
        self.handles.queue.clone()
    }
    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.handles.dead_letters.clone()
    }
    fn invocations(&self) -> Arc<dyn InvocationStore> {
        self.handles.invocations.clone()
    }
    fn lessons(&self) -> Arc<dyn Lessons> {
        self.handles.lessons.clone()
    }
    fn registry(&self) -> Arc<dyn Registry> {
        self.handles.registry.clone()
    }
    fn keys(&self) -> Arc<dyn KeyStore> {
        self.handles.keys.clone()
    }
    fn artifacts(&self) -> Arc<dyn ArtifactStore> {
        self.handles.artifacts.clone()
    }
}

/// All but the lock and the shared-memory file, which a dead process leaves without meaning.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else if name != "lock" && name != "faasd.db-shm" {
            let modified = entry.metadata().unwrap().modified().unwrap();
            fs::copy(entry.path(), &target).unwrap();
            fs::File::open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
}

fn open(dir: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(dir, &Config::default(), Arc::new(SystemClock::new()))
}

#[tokio::test]
async fn a_second_store_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    first.close().await;
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    let _store = open(&data).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("artifacts")), 0o700);
    for file in ["faasd.db", "faasd.db-wal", "lock"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close().await;
    let file = rusqlite::Connection::open(dir.path().join("faasd.db")).unwrap();
    file.execute_batch("PRAGMA user_version = 99").unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(matches!(refused, OpenError::NewerSchema { found: 99, .. }), "{refused}");
}

#[tokio::test]
async fn closing_writes_what_was_behind_and_folds_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let records: Vec<_> = (0..2000).map(|_| samples::finished("ann", Status::Success)).collect();
    for record in &records {
        store.invocations.finish_behind(record.clone()).unwrap();
    }
    store.close().await;
    assert!(store.invocations.finish(records[0].clone()).await.is_err());
    assert!(!dir.path().join("faasd.db-wal").exists());
    let store = open(dir.path()).unwrap();
    for record in &records {
        let found = store.invocations.get(record.record.request_id).await.unwrap();
        assert!(matches!(found, Lookup::Found(_)));
    }
}

#[tokio::test]
async fn the_file_stays_bounded() {
    let mut config = Config::default();
    config.retention.store_bytes_max = 8 << 20;
    let world = EmbeddedWorld::open(config).await;
    let mut refused = 0;
    for _ in 0..40 {
        let mut record = samples::finished("ann", Status::Success);
        Arc::get_mut(&mut record).unwrap().record.stdout = "x".repeat(512 << 10);
        refused += u32::from(world.invocations().finish(record).await.is_err());
        world.sweep().await;
    }
    assert_eq!(refused, 0);
    assert!(fs::metadata(world.dir.path().join("faasd.db")).unwrap().len() <= 8 << 20);
    let kept = world.invocations().list(&RecordQuery { limit: 100, ..Default::default() }).await.unwrap();
    assert!((5..40).contains(&kept.items.len()), "{}", kept.items.len());
}

/// Set in the process that is to be killed: where its store is.
const VICTIM: &str = "FAASD_TEST_VICTIM_DIR";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_outlives_kill_9() {
    if let Ok(dir) = std::env::var(VICTIM) {
        return accept_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contract::embedded::what_was_accepted_outlives_kill_9", "--nocapture"])
        .env(VICTIM, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut accepted: Vec<InvocationId> = Vec::new();
    let mut note = |line: String| {
        accepted.extend(line.strip_prefix("accepted ").and_then(|id| id.parse::<InvocationId>().ok()));
        accepted.len()
    };
    while note(lines.next().unwrap()) < 300 {}
    victim.kill().unwrap();
    victim.wait().unwrap();
    for line in lines {
        note(line);
    }

    let store = open(dir.path()).unwrap();
    let leases = store.queue.receive(usize::MAX, usize::MAX, Duration::ZERO).await.unwrap();
    let queued: BTreeSet<_> = leases.iter().map(|lease| lease.job.invocation).collect();
    for id in accepted {
        assert!(queued.contains(&id), "job {id} is lost");
        assert!(matches!(store.invocations.get(id).await.unwrap(), Lookup::Found(_)), "record {id} is lost");
    }
}

async fn accept_until_killed(dir: &Path) {
    let store = Arc::new(open(dir).unwrap());
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        senders.spawn(async move {
            loop {
                let record = samples::queued("ann");
                let job = Job { invocation: record.record.request_id, ..samples::job("ann") };
                let id = job.invocation;
                store.invocations.create(record, None).await.unwrap();
                store.queue.send(job, Duration::ZERO).await.unwrap();
                println!("accepted {id}");
            }
        });
    }
    senders.join_all().await;
}
