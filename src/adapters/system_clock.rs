//! The machine's own clock. The only place that reads it.

use std::time::{Duration, Instant, SystemTime};

use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;

/// Wall time from the kernel; monotonic time counted from this value's creation.
#[derive(Debug)]
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}
