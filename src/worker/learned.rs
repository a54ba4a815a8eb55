//! What the policies have learned here, kept over a restart: read before the first call, written every ten minutes as far as it
//! changed, and once more at the end.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::policy::learned::{Learned, Lesson};

use super::Worker;

/// What a crash loses at most. Seldom enough that it is no load: some hundred bytes for each function that was called meanwhile.
const SAVE_EVERY: Duration = Duration::from_secs(600);
/// Taken out of the pool, or the advisors, at once: calls wait meanwhile.
const BATCH: usize = 128;
/// Until then a stopping node waits for the store.
const SAVE_AT_END: Duration = Duration::from_secs(2);

impl Worker {
    /// Takes up what an earlier process wrote. Before [`Worker::start`]. A store that can't say costs only what it knew.
    pub async fn recall(&self) {
        let lessons = match self.lessons.load().await {
            Ok(lessons) => lessons,
            Err(error) => {
                tracing::warn!(%error, "what was learned of functions before can't be read");
                return;
            }
        };
        let mut unreadable = 0_usize;
        for lesson in &lessons {
            match lesson.read() {
                Some(Learned::Pauses(function, pauses)) => {
                    self.sandboxes.with_pool_mut(|pool| pool.recall(function, *pauses));
                }
                Some(Learned::Calls(calls)) => self.advisors.recall(*calls),
                None => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::warn!(
                unreadable,
                of = lessons.len(),
                "some of what was learned of functions is unreadable, and left"
            );
        }
    }

    pub(super) async fn keep_learned(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            self.save_learned().await;
        }
    }

    /// What changed since the last time. What can't be written now is lost for the next process unless it changes again.
    async fn save_learned(&self) {
        loop {
            let habits = self.sandboxes.with_pool_mut(|pool| pool.changed_habits(BATCH));
            let calls = self.advisors.take_changed(BATCH);
            let pauses = habits.iter().map(|(function, idle)| Lesson::of_pauses(*function, idle));
            let lessons: Vec<Lesson> = pauses.chain(calls.iter().map(Lesson::of_calls)).collect();
            if lessons.is_empty() {
                return;
            }
            if let Err(error) = self.lessons.save(lessons).await {
                tracing::warn!(%error, "what was learned of functions could not be written");
                return;
            }
        }
    }

    pub(super) async fn save_learned_at_end(&self) {
        if tokio::time::timeout(SAVE_AT_END, self.save_learned()).await.is_err() {
            tracing::warn!("the store did not take what was learned of functions in time");
        }
    }
}
