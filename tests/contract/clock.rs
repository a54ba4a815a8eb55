//! The clock of a world.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use faasd::adapters::system_clock::SystemClock;
use faasd::domain::time::Timestamp;
use faasd::ports::clock::Clock;

/// The machine's clock, put forward by what a test let pass.
pub struct ShiftedClock {
    clock: SystemClock,
    shift_ms: AtomicU64,
}

impl ShiftedClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { clock: SystemClock::new(), shift_ms: AtomicU64::new(0) })
    }

    pub fn pass(&self, time: Duration) {
        self.shift_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    fn shift(&self) -> Duration {
        Duration::from_millis(self.shift_ms.load(Ordering::SeqCst))
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        self.clock.now().after(self.shift())
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + self.shift()
    }
}
