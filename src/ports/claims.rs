//! Claims: which workers have idle sandboxes of a version, told to whoever calls it next.
//!
//! A claim is a hint with an owner: who took it may call that worker, and is refused where the sandbox is gone by then. It costs the
//! caller one more claim, nothing else.

use async_trait::async_trait;

use crate::domain::ids::{VersionKey, WorkerId};

use super::Unavailable;

#[async_trait]
pub trait Claims: Send + Sync + 'static {
    /// `count` more idle sandboxes of `version` may be called at `worker`. Forgotten after a while unless offered again.
    async fn offer(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<(), Unavailable>;

    /// Takes the claim that was offered last: nobody else gets it.
    async fn take(&self, version: VersionKey) -> Result<Option<WorkerId>, Unavailable>;

    /// `count` of the worker's claims are void. How many of them were still there.
    async fn withdraw(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<u32, Unavailable>;
}
