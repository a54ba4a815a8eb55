//! What a suite needs of an adapter: its ports, time that passes, and its death.

use std::sync::Arc;
use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::Digest;
use faasd::domain::time::Timestamp;
use faasd::ports::artifacts::ArtifactStore;
use faasd::ports::invocations::InvocationStore;
use faasd::ports::keys::KeyStore;
use faasd::ports::lessons::Lessons;
use faasd::ports::queue::{DeadLetters, JobQueue};
use faasd::ports::registry::Registry;

use super::embedded::EmbeddedWorld;

/// One store, empty when opened.
pub trait World: Sized {
    /// Records that a suite writes behind at once: as many as this store takes within [`World::SOON`].
    const BEHIND: usize = 1000;
    /// What is written behind is written by then.
    const SOON: Duration = Duration::from_millis(500);
    /// By how much the backlog's figures may be behind.
    const FIGURES_LAG: Duration = Duration::ZERO;

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

    /// Has every port that this world says nothing of.
    fn rest(&self) -> &EmbeddedWorld;

    fn queue(&self) -> Arc<dyn JobQueue> {
        self.rest().queue()
    }
    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.rest().dead_letters()
    }
    fn invocations(&self) -> Arc<dyn InvocationStore> {
        self.rest().invocations()
    }
    fn registry(&self) -> Arc<dyn Registry> {
        self.rest().registry()
    }
    fn keys(&self) -> Arc<dyn KeyStore> {
        self.rest().keys()
    }
    fn lessons(&self) -> Arc<dyn Lessons> {
        self.rest().lessons()
    }
    fn artifacts(&self) -> Arc<dyn ArtifactStore> {
        self.rest().artifacts()
    }
}
