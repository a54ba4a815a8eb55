//! Claims: which workers have idle sandboxes of a version, told to whoever calls it next.
//!
//! A claim is a hint with an owner: who took it may call that worker, and is refused where the sandbox is gone by then. It costs the
//! caller one more claim, nothing else. One worker's claims on one version are alike: only their number counts. A call that was given up by a
//! timeout may still have had its effect, so a worker now and then withdraws all of its claims on a version and offers what there is.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::{VersionKey, WorkerId};

use super::Unavailable;

/// A worker's claims on a version are forgotten so long after its last offer of that version.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Claims on one version; beyond them the oldest go. More are never wanted at once: whoever finds none asks a worker all the same.
pub const CLAIMS_MAX: u32 = 1024;

#[async_trait]
pub trait Claims: Send + Sync + 'static {
    /// `count` more idle sandboxes of `version` may be called at `worker`. With a count of 0 those offered before are good for longer.
    async fn offer(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<(), Unavailable>;

    /// Takes the claim that was offered last: nobody else gets it.
    async fn take(&self, version: VersionKey) -> Result<Option<WorkerId>, Unavailable>;

    /// `count` of the worker's claims are void (`u32::MAX`: all). How many of them were still there.
    async fn withdraw(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<u32, Unavailable>;
}
