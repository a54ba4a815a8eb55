//! What a suite needs of an adapter: its ports, time that passes, and its death.

use std::sync::Arc;
use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::Digest;
use faasd::domain::time::Timestamp;
use faasd::ports::artifacts::ArtifactStore;
use faasd::ports::bus::Bus;
use faasd::ports::invocations::InvocationStore;
use faasd::ports::keys::KeyStore;
use faasd::ports::lessons::Lessons;
use faasd::ports::queue::{DeadLetters, JobQueue};
use faasd::ports::registry::Registry;

/// One store, empty when opened.
pub trait World: Sized {
    /// Records that a suite writes behind at once: as many as this store takes within [`World::SOON`].
    const BEHIND: usize = 1000;
    /// What is written behind is written by then.
    const SOON: Duration = Duration::from_millis(500);

    async fn open(config: Config) -> Self;

    /// What a process finds that opens the store after this one was killed at this moment.
    async fn killed(self) -> Self;

    fn now(&self) -> Timestamp;

    /// That much time is over for the store when this returns.
    async fn pass(&self, time: Duration);

    /// What is over has been cleared away when this returns.
    async fn sweep(&self);

    /// Changes a byte of a stored artifact behind the store's back.
    fn damage(&self, artifact: Digest);

    fn queue(&self) -> Arc<dyn JobQueue>;
    fn dead_letters(&self) -> Arc<dyn DeadLetters>;
    fn invocations(&self) -> Arc<dyn InvocationStore>;
    fn registry(&self) -> Arc<dyn Registry>;
    fn keys(&self) -> Arc<dyn KeyStore>;
    fn lessons(&self) -> Arc<dyn Lessons>;
    fn artifacts(&self) -> Arc<dyn ArtifactStore>;
    fn bus(&self) -> Arc<dyn Bus>;
}
