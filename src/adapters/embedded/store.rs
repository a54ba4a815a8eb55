//! What the adapters of all ports stand on: the writer's inbox and the readers.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::domain::ids::InvocationId;
use crate::domain::invocation::StoredRecord;
use crate::ports::StoreError;

use super::errors::{io_error, stopped};
use super::inbox::{Decision, Inbox};
use super::metrics::Metrics;
use super::readers::Readers;
use super::records::RecordRows;
use super::writer::Writer;

pub(super) struct Store {
    inbox: Arc<Inbox>,
    readers: Readers,
    pub rows: Arc<RecordRows>,
    /// How many there are, about: exact after each sweep.
    pub dead_letters: AtomicU64,
    /// Its sender is dropped when the writer has ended.
    writing: watch::Receiver<()>,
}

impl Store {
    pub fn start(
        path: PathBuf,
        connection: Connection,
        config: &Config,
        lock: File,
        dead_letters: u64,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let inbox = Arc::new(Inbox::new(metrics.clone()));
        let rows = Arc::new(RecordRows::new(config.retention.results_s));
        let writer = Writer { connection, inbox: inbox.clone(), rows: rows.clone(), metrics, lock };
        let (running, writing) = watch::channel(());
        let run = move || {
            writer.run();
            drop(running);
        };
        let started = thread::Builder::new().name("store-write".to_owned()).spawn(run);
        started.map_err(|error| io_error("start a thread", &error))?;
        let dead_letters = AtomicU64::new(dead_letters);
        Ok(Self { inbox, readers: Readers::start(path)?, rows, dead_letters, writing })
    }

    /// Decides and makes a change in a transaction and returns when it is durable. `decide` may run twice: what it learns of the
    /// file the first time may be undone.
    pub async fn write<T, D>(&self, decide: D) -> Result<T, StoreError>
    where
        T: Send + 'static,
        D: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.submit(decide, move |outcome| {
            let _ = sender.send(outcome);
        })?;
        receiver.await.map_err(|_| stopped())?
    }

    /// The same for a thread that may block.
    pub fn write_blocking<T, D>(&self, decide: D) -> Result<T, StoreError>
    where
        T: Send + 'static,
        D: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.submit(decide, move |outcome| {
            let _ = sender.send(outcome);
        })?;
        receiver.blocking_recv().map_err(|_| stopped())?
    }

    /// The same without waiting: `then` is called by the writer after the commit, whoever has gone away meanwhile, and must be
    /// quick.
    pub fn submit<T, D, A>(&self, decide: D, then: A) -> Result<(), StoreError>
    where
        T: Send + 'static,
        D: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        self.inbox.push(Box::new(Decision { decide, outcome: None, then }), true)
    }

    /// The same for what nobody waits for: it shares the commit of the next change that somebody does, or is made soon by itself.
    pub fn submit_soon<T, D, A>(&self, decide: D, then: A) -> Result<(), StoreError>
    where
        T: Send + 'static,
        D: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
        A: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        self.inbox.push(Box::new(Decision { decide, outcome: None, then }), false)
    }

    pub fn write_behind(&self, record: Arc<StoredRecord>) -> Result<(), StoreError> {
        self.inbox.push_behind(record)
    }

    pub fn pending(&self, id: InvocationId) -> Option<Arc<StoredRecord>> {
        self.inbox.pending(id)
    }

    pub async fn read<T, R>(&self, read: R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers.read(read).await
    }

    /// The same for a thread that may block.
    pub fn read_blocking<T, R>(&self, read: R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers.read_blocking(read)
    }

    pub fn close(&self) {
        self.inbox.close();
        self.readers.close();
    }

    /// Returns when the writer has written everything and let go of the file.
    pub async fn closed(&self) {
        let mut writing = self.writing.clone();
        while writing.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn open(dir: &std::path::Path) -> Store {
        let path = dir.join("faasd.db");
        let connection = super::super::schema::open_writer(&path, 1 << 30).unwrap();
        let lock = super::super::lock::lock(dir).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Store::start(path, connection, &Config::default(), lock, 0, metrics).unwrap()
    }

    fn insert(connection: &Connection, n: u32) -> Result<(), StoreError> {
        let sql = "INSERT INTO idempotency VALUES ('ann', x'00', ?1, x'00', x'00', 0)";
        connection.prepare_cached(sql)?.execute([n.to_string()])?;
        Ok(())
    }

    /// Keeps the writer busy until the sender is dropped, so that what is asked for meanwhile shares one commit.
    fn hold(store: &Store) -> mpsc::Sender<()> {
        let (sender, receiver) = mpsc::channel::<()>();
        let receiver = std::sync::Mutex::new(receiver);
        let wait = move |_: &Connection| {
            let _ = receiver.lock().unwrap().recv();
            Ok(())
        };
        store.submit(wait, |_| ()).unwrap();
        sender
    }

    #[tokio::test]
    async fn a_change_that_fails_leaves_its_batch_mates_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(open(dir.path()));
        let held = hold(&store);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let store = store.clone();
            tasks.spawn(async move {
                let written = store
                    .write(move |connection| {
                        insert(connection, n)?;
                        // Half done, then failed: the half must not stay.
                        if n % 10 == 3 { insert(connection, n) } else { Ok(()) }
                    })
                    .await;
                (n, written.is_ok())
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
        let mut written: Vec<u32> = tasks.join_all().await.into_iter().filter(|one| one.1).map(|one| one.0).collect();
        written.sort_unstable();
        assert_eq!(written, (0..50).filter(|n| n % 10 != 3).collect::<Vec<_>>());
        let kept: u64 = store
            .read(|connection| Ok(connection.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0))?))
            .await
            .unwrap();
        assert_eq!(kept, 45);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_goes_with_the_next_that_somebody_does_in_order_or_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (sender, done) = mpsc::channel();
        let soon = |n| {
            let sender = sender.clone();
            store
                .submit_soon(move |connection| insert(connection, n), move |made| sender.send((n, made)).unwrap())
                .unwrap();
        };
        soon(1);
        let before = store.write(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM idempotency", [], |row| row.get::<_, u64>(0))?)
        });
        assert_eq!(before.await.unwrap(), 1, "made before what came later");
        assert!(matches!(done.try_recv(), Ok((1, Ok(())))), "and in one commit with it");
        soon(2);
        assert!(matches!(done.recv_timeout(Duration::from_secs(10)), Ok((2, Ok(())))), "by itself");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let died = store.write(|_| -> Result<(), StoreError> { panic!("the writer dies") }).await;
        assert!(matches!(died, Err(StoreError::Unavailable(_))), "{died:?}");
        store.closed().await;
        let refused = store.write(|_| Ok(())).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
}
