//! The audit log: written before a change is answered, read newest first.

use async_trait::async_trait;

use crate::domain::audit::{Entry, Recorded};
use crate::domain::page::Page;

use super::StoreError;

/// When an entry must be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On return.
    BeforeReturn,
    /// Soon; a crash of the machine within the moment loses it.
    Soon,
}

#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Whether an entry could be kept now: asked before a change is made, so that none is made that can't be told.
    async fn ready(&self) -> Result<(), StoreError>;

    /// An entry that could not be written is kept and written before the next one; until then the log is not [`ready`].
    ///
    /// [`ready`]: AuditLog::ready
    async fn append(&self, entry: Entry, durability: Durability) -> Result<(), StoreError>;

    /// Newest first.
    async fn list(&self, limit: usize, cursor: Option<&str>) -> Result<Page<Recorded>, StoreError>;
}
