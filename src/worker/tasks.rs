//! Tasks whose end somebody waits for.

use std::future::{Future, poll_fn};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};

use tokio::task::JoinSet;

/// A set of tasks; finished ones leave it when the next begins. Dropping it aborts the rest.
#[derive(Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.lock();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }

    pub fn abort(&self) {
        self.lock().abort_all();
    }

    /// Returns when all that were begun are over. Dropping the future changes nothing. One waiter at a time.
    pub async fn join(&self) {
        poll_fn(|context| {
            let mut set = self.lock();
            while ready!(set.poll_join_next(context)).is_some() {}
            Poll::Ready(())
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A panic leaves the set as good as before: it is only ever spawned into.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
