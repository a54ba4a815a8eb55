//! The pool's sense of time: it is told when what it waits for has come, and how long that may take it says itself.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::pool::Event;

use super::processors::Processors;
use super::sandboxes::{Core, Sandboxes};

/// Between ticks: never more often, never more seldom.
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(200);
/// The same while nothing runs, waits or starts: an idle node sleeps.
const TICK_QUIET: Duration = Duration::from_secs(1);

impl Sandboxes {
    /// Freezes and ends what is idle for too long, refills, and looks after lines that are stuck; for ever.
    pub async fn tick(self: Arc<Self>) {
        let mut processors = Processors::open();
        loop {
            if let Some(idle) = processors.idle(self.clock.monotonic()) {
                self.apply(Event::Processors { idle });
            }
            self.apply(Event::Tick);
            self.metrics.observe(&self.lock().pool);
            self.until_next(self.clock.monotonic()).await;
        }
    }

    async fn until_next(&self, last: Duration) {
        loop {
            let now = self.clock.monotonic();
            let at = {
                let mut core = self.lock();
                let next = core.pool.next_tick(now).unwrap_or(Duration::MAX);
                let most = if core.pool.is_quiet() { TICK_QUIET } else { TICK_MAX };
                core.tick_at = next.clamp(last + TICK_MIN, last + most);
                core.tick_at
            };
            tokio::select! {
                () = tokio::time::sleep(at.saturating_sub(now)) => return,
                () = self.tick_sooner.notified() => {}
            }
        }
    }

    /// After an event at `now`. Only a line that begins to wait, and a generic sandbox that was taken, can be due before what the ticker
    /// knew of; a line is watched once at a time, so that this is silent while calls come and go.
    pub(super) fn tick_in_time(&self, core: &mut Core, now: Duration) {
        let due = core.pool.next_watch().into_iter().chain(core.pool.next_refill(now)).min();
        if let Some(at) = due
            && at < core.tick_at
        {
            core.tick_at = at;
            self.tick_sooner.notify_one();
        }
    }
}
