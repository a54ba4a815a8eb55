//! The gate that synchronous calls pass: counts those inside, refuses beyond the bound, and lets shutdown wait until it is empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Default)]
pub struct Gate {
    inside: AtomicUsize,
    emptied: Notify,
}

/// One call's presence; it leaves when this is dropped.
pub struct Pass(Arc<Gate>);

impl Gate {
    /// `None` when `max` are inside.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Pass> {
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        let pass = Pass(self.clone());
        (before < max).then_some(pass)
    }

    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// Returns when nobody is inside.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.inside() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_holds_and_emptiness_is_told() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none());
        assert_eq!(gate.inside(), 1);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.empty().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
        assert!(gate.enter(1).is_some());
    }
}
