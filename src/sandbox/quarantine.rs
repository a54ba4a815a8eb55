//! Sandboxes that were killed and do not end: a process that hangs in the kernel, or a group that can't be emptied. Their slots, and
//! with them their host ids, stay taken until they do, and an operator is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{IntCounter, IntGauge, Registry};

/// How many there are, and were.
#[derive(Clone, Debug)]
pub struct Quarantine {
    now: IntGauge,
    ever: IntCounter,
}

impl Default for Quarantine {
    #[allow(clippy::expect_used, reason = "both names are valid")]
    fn default() -> Self {
        let now = IntGauge::new("faasd_sandbox_quarantined", "Sandboxes that were killed and have not ended.");
        let ever =
            IntCounter::new("faasd_sandbox_quarantines_total", "Sandboxes that did not end when they were killed.");
        Self { now: now.expect("a valid name"), ever: ever.expect("a valid name") }
    }
}

impl Quarantine {
    pub fn register(&self, registry: &Registry) {
        let both = [registry.register(Box::new(self.now.clone())), registry.register(Box::new(self.ever.clone()))];
        for error in both.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "metric not registered");
        }
    }

    /// A place for one sandbox, which is free so far.
    pub fn place(&self) -> Arc<Place> {
        Arc::new(Place { quarantine: self.clone(), taken: AtomicBool::new(false) })
    }
}

/// One sandbox's place; given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    quarantine: Quarantine,
    taken: AtomicBool,
}

impl Place {
    pub fn take(&self, slot: u32, why: &'static str) {
        if !self.taken.swap(true, Ordering::Relaxed) {
            self.quarantine.now.inc();
            self.quarantine.ever.inc();
            tracing::error!(
                slot,
                why,
                "killed sandbox does not end: its slot is kept, and looked after in the background"
            );
        }
    }

    /// It has ended after all.
    pub fn leave(&self, slot: u32) {
        if self.taken.swap(false, Ordering::Relaxed) {
            self.quarantine.now.dec();
            tracing::info!(slot, "sandbox that did not end is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_and_leaves_once() {
        let quarantine = Quarantine::default();
        let (one, other) = (quarantine.place(), quarantine.place());
        one.take(1, "hangs");
        one.take(1, "hangs");
        other.leave(2);
        assert_eq!((quarantine.now.get(), quarantine.ever.get()), (1, 1));
        one.leave(1);
        one.leave(1);
        assert_eq!((quarantine.now.get(), quarantine.ever.get()), (0, 1));
    }
}
