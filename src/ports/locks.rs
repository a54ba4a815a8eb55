//! Locks with fencing: one holder at a time, and a number by which what a late holder does can be told from what its successor does.

use std::time::Duration;

use async_trait::async_trait;

use super::Unavailable;

/// Higher for each next holder of the same lock, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// Takes the lock for `valid_for` if nobody has it; `None` if somebody else does. Whoever has it gets its own fence again, for longer.
    async fn acquire(&self, name: &str, holder: &str, valid_for: Duration) -> Result<Option<Fence>, Unavailable>;

    /// Gives it back; nothing happens if it is not `holder`'s any more.
    async fn release(&self, name: &str, holder: &str) -> Result<(), Unavailable>;
}
