//! The threads that read, each with a connection of its own that is opened at its first read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::ports::StoreError;

use super::errors::{io_error, stopped};
use super::locked;
use super::schema::open_reader;

/// One may be in a long listing while the other serves the short ones.
const READERS: usize = 2;
/// Reads waiting for a thread; beyond it the store sheds load.
const READS_MAX: usize = 16_384;

type Read = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

pub(super) struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Read>,
    closed: bool,
}

impl Readers {
    pub fn start(path: PathBuf) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { path, state: Mutex::default(), arrived: Condvar::new() });
        let readers = Self { shared };
        for n in 0..READERS {
            let shared = readers.shared.clone();
            thread::Builder::new()
                .name(format!("store-read-{n}"))
                .spawn(move || shared.run())
                .map_err(|error| io_error("start a thread", &error))?;
        }
        Ok(readers)
    }

    /// Runs `read` on one of the threads.
    pub async fn read<T, R>(&self, read: R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.submit(read)?.await.map_err(|_| stopped())?
    }

    /// The same for a thread that may block.
    pub fn read_blocking<T, R>(&self, read: R) -> Result<T, StoreError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.submit(read)?.blocking_recv().map_err(|_| stopped())?
    }

    fn submit<T, R>(&self, read: R) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.push(Box::new(move |connection| {
            // Whoever asked may have gone away meanwhile.
            if !sender.is_closed() {
                let _ = sender.send(connection.and_then(read));
            }
        }))?;
        Ok(receiver)
    }

    fn push(&self, read: Read) -> Result<(), StoreError> {
        let mut state = locked(&self.shared.state);
        if state.closed {
            return Err(stopped());
        }
        if state.waiting.len() >= READS_MAX {
            return Err(StoreError::Full(format!("{READS_MAX} reads wait for the store")));
        }
        state.waiting.push_back(read);
        // Only then: whoever wakes would wait for the lock again.
        drop(state);
        self.shared.arrived.notify_one();
        Ok(())
    }

    /// Nothing more is accepted; what waits is still read.
    pub fn close(&self) {
        locked(&self.shared.state).closed = true;
        self.shared.arrived.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let mut connection = None;
        while let Some(read) = self.next() {
            if connection.is_none() {
                connection = match open_reader(&self.path) {
                    Ok(opened) => Some(opened),
                    Err(error) => {
                        read(Err(error.into()));
                        continue;
                    }
                };
            }
            read(connection.as_ref().ok_or_else(stopped));
        }
    }

    fn next(&self) -> Option<Read> {
        let mut state = locked(&self.state);
        loop {
            if let Some(read) = state.waiting.pop_front() {
                return Some(read);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
