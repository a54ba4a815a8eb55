//! Where the figure goes by which a fleet grows and shrinks.

use async_trait::async_trait;

use super::Unavailable;

#[async_trait]
pub trait Signal: Send + Sync + 'static {
    /// Work per worker now: 1.0 is a fleet that is just busy enough (`domain::scaling`).
    async fn publish(&self, work_per_worker: f64) -> Result<(), Unavailable>;
}
