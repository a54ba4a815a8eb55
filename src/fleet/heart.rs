//! Heartbeats: a worker tells the roster that it lives and how it is, and at once when its state changes.

use std::sync::Arc;
use std::time::Duration;

use crate::ports::executor::Executor;
use crate::ports::roster::Roster;

use super::alone::Heard;

/// How soon a change of state is told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// For ever. Where the roster does not answer, the next beat is another try.
pub async fn beat(worker: Arc<dyn Executor>, roster: Arc<dyn Roster>, every: Duration, heard: Arc<Heard>) {
    let (mut told, mut silent, mut failing) = (None, every, false);
    loop {
        if let Some(view) = worker.view()
            && (silent >= every || told != Some(view.state))
        {
            match roster.beat(&view).await {
                Ok(()) => {
                    heard.somebody();
                    if std::mem::take(&mut failing) {
                        tracing::info!("heartbeats are heard again");
                    }
                    (told, silent) = (Some(view.state), Duration::ZERO);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "a heartbeat was not heard");
                    }
                    silent = Duration::ZERO;
                }
            }
        }
        let pause = LOOK_EVERY.min(every);
        tokio::time::sleep(pause).await;
        silent += pause;
    }
}
