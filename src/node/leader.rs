//! What one node of a fleet does for all: whoever holds the lock of that work; and each by itself where nodes can't agree.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::Controller;
use crate::ports::StoreError;
use crate::ports::locks::Locks;

use super::works::AbortOnDrop;

/// Between two looks at who leads.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A leader that falls silent has a successor after three looks.
const LEADS_FOR: Duration = Duration::from_secs(180);

/// Leads its own works, if nobody else does.
#[derive(Clone)]
pub(super) struct Leader {
    pub locks: Option<Arc<dyn Locks>>,
    /// What this node is called.
    pub holder: String,
}

impl Leader {
    /// Does `work` each time that much time has passed since it last did, for as long as it leads. Work that fails is done again at the
    /// next look. Each must bear being done by two at once: a lock may have changed hands in mid-work.
    pub fn lead<F>(&self, name: &'static str, every: Duration, work: impl Fn() -> F + Send + 'static) -> AbortOnDrop
    where
        F: Future<Output = Result<u64, StoreError>> + Send,
    {
        let leader = self.clone();
        AbortOnDrop(tokio::spawn(async move { leader.run(name, every, work).await }).abort_handle())
    }

    async fn run<F>(&self, name: &'static str, every: Duration, work: impl Fn() -> F)
    where
        F: Future<Output = Result<u64, StoreError>>,
    {
        let mut done: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.leads(name).await || done.is_some_and(|at| at.elapsed() < every) {
                continue;
            }
            match work().await {
                Ok(count) => {
                    tracing::debug!(work = name, count, "done for the fleet");
                    done = Some(Instant::now());
                }
                Err(error) => tracing::warn!(work = name, %error, "what is done for the fleet is tried again"),
            }
        }
    }

    async fn leads(&self, name: &str) -> bool {
        let Some(locks) = &self.locks else { return true };
        match locks.acquire(name, &self.holder, LEADS_FOR).await {
            Ok(held) => held.is_some(),
            // Nothing here is so urgent that two should do it.
            Err(_) => false,
        }
    }
}

/// Ends calls whose controller ended before they did, each minute.
pub(super) fn end_abandoned(leader: &Leader, controller: Weak<Controller>) -> AbortOnDrop {
    leader.lead("abandoned", LOOK_EVERY, move || {
        let controller = controller.upgrade();
        async move {
            match controller {
                Some(controller) => controller.end_abandoned().await,
                None => Ok(0),
            }
        }
    })
}

/// Keeps the code of every version from the bucket's lifecycle rule, each day.
#[cfg(feature = "aws")]
pub(super) fn keep_code(
    leader: &Leader,
    registry: Arc<dyn crate::ports::registry::Registry>,
    artifacts: Arc<dyn crate::ports::artifacts::ArtifactStore>,
) -> AbortOnDrop {
    use crate::adapters::aws::s3::{RENEW_AGE, keep_referenced};
    leader.lead("keep-code", RENEW_AGE, move || {
        let (registry, artifacts) = (registry.clone(), artifacts.clone());
        async move { keep_referenced(registry.as_ref(), artifacts.as_ref()).await }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::adapters::local::Local;
    use crate::worker::fake::FakeClock;

    fn counting(leader: &Leader, every: Duration, fails: usize) -> (AbortOnDrop, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let task = leader.lead("work", every, move || {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            async move { if nth < fails { Err(StoreError::Unavailable("busy".to_owned())) } else { Ok(1) } }
        });
        (task, count)
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_does_it_and_when_that_one_is_gone_another() {
        let locks = Local::new(Arc::new(FakeClock::new())).locks;
        let node = |name: &str| Leader { locks: Some(locks.clone()), holder: name.to_owned() };
        let (day, hour) = (Duration::from_secs(86_400), Duration::from_secs(3600));
        let (first, by_first) = counting(&node("a"), day, 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (_second, by_second) = counting(&node("b"), day, 0);
        tokio::time::sleep(hour).await;
        assert_eq!(by_first.load(Ordering::SeqCst), 3, "tried until it succeeded, then not before the next day");
        tokio::time::sleep(2 * day).await;
        assert_eq!((by_first.load(Ordering::SeqCst), by_second.load(Ordering::SeqCst)), (5, 0));
        drop(first);
        tokio::time::sleep(hour).await;
        assert_eq!((by_first.load(Ordering::SeqCst), by_second.load(Ordering::SeqCst)), (5, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_agree_with_nobody_does_it_alone() {
        let (_task, count) = counting(&Leader { locks: None, holder: "a".to_owned() }, LOOK_EVERY, 0);
        tokio::time::sleep(LOOK_EVERY * 5 + Duration::from_secs(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 5);
    }
}
