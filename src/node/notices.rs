//! What this node's machine is told of its end: taken seriously at once.

use std::sync::Arc;
use std::time::Duration;

use crate::ports::instance::{Instance, Notice};
use crate::worker::Worker;

/// Notice comes two minutes ahead; half a minute of that is a drain.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How the reasons begin that come from the instance, which is told when the node is done.
pub(super) const INSTANCE: &str = "instance";
/// A hook waits for half a minute at least.
const KEEP_EVERY: Duration = Duration::from_secs(10);

const RECLAIMED: &str = "instance reclaimed";
const TERMINATING: &str = "instance terminating";

/// Cordons the worker at the first doubt; returns when the node is to end.
pub(super) async fn watch(instance: Arc<dyn Instance>, worker: Option<Arc<Worker>>) -> &'static str {
    let mut cordoned = false;
    loop {
        match instance.notice().await {
            Ok(Some(Notice::Reclaimed)) => return RECLAIMED,
            Ok(Some(Notice::Terminating)) => return TERMINATING,
            Ok(Some(Notice::Rebalance)) if !cordoned => {
                tracing::warn!("this instance is likely to be taken back: no new work is taken");
                if let Some(worker) = &worker {
                    worker.cordon(true);
                }
                cordoned = true;
            }
            Ok(Some(Notice::Rebalance) | None) => {}
            Err(error) => tracing::debug!(%error, "the instance's metadata do not answer"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Keeps the instance from being ended while the node drains, until it is dropped or `most` is over: whatever hangs by then must not hold
/// the instance for ever.
pub(super) async fn keep_waiting(instance: Arc<dyn Instance>, most: Duration) {
    let asking = async {
        loop {
            if let Err(error) = instance.still_draining().await {
                tracing::debug!(%error, "nobody was told that this node still drains");
            }
            tokio::time::sleep(KEEP_EVERY).await;
        }
    };
    if tokio::time::timeout(most, asking).await.is_err() {
        tracing::warn!(?most, "the drain takes longer than it may: the instance may end now");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::ports::Unavailable;

    #[derive(Default)]
    struct Told(AtomicUsize);

    #[async_trait]
    impl Instance for Told {
        async fn notice(&self) -> Result<Option<Notice>, Unavailable> {
            Ok(None)
        }

        /// One that fails is followed by the next.
        async fn still_draining(&self) -> Result<(), Unavailable> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                1 => Err(Unavailable("busy".to_owned())),
                _ => Ok(()),
            }
        }

        async fn done(&self) -> Result<(), Unavailable> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_kept_for_as_long_as_the_drain_may_take_and_no_longer() {
        let told = Arc::new(Told::default());
        let keeping = tokio::spawn(keep_waiting(told.clone(), 5 * KEEP_EVERY - Duration::from_secs(1)));
        tokio::time::sleep(3 * KEEP_EVERY - Duration::from_secs(1)).await;
        assert_eq!(told.0.load(Ordering::SeqCst), 3);
        keeping.await.unwrap();
        tokio::time::sleep(10 * KEEP_EVERY).await;
        assert_eq!(told.0.load(Ordering::SeqCst), 5);
    }
}
