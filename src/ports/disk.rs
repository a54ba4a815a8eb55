//! The disk that a node's data lie on: how much room it has, and who can give some back.

use async_trait::async_trait;

use crate::domain::disk::Room;

pub trait Disk: Send + Sync + 'static {
    /// As it was seen a moment ago.
    fn room(&self) -> Room;
}

/// Keeps what it could have again, or what is over.
#[async_trait]
pub trait Spare: Send + Sync + 'static {
    /// What it is called in a log.
    fn name(&self) -> &'static str;

    /// Gives back what nobody uses, longest unused first, until that is `wanted` bytes or all of it. How many it was, where that is known.
    async fn give_back(&self, wanted: u64) -> u64;
}
