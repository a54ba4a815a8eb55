//! The clock, so that tests can hold it.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// Wall time for records, monotonic time for decisions.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970; may jump.
    fn now(&self) -> Timestamp;

    /// Since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}
