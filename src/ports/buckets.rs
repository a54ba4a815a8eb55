//! Token buckets that all controllers share: each draws several tokens at once and spends them by itself.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::rate::{Drawn, Rate};

use super::Unavailable;

/// Who is limited: the SHA-256 of a key's secret, never the secret.
pub type Identity = [u8; 32];

/// A node counts among those that share for so long after it last asked how many there are.
pub const SHARES_FOR: Duration = Duration::from_secs(30);

#[async_trait]
pub trait Buckets: Send + Sync + 'static {
    /// Takes up to `want` tokens, as many as there are.
    async fn draw(&self, identity: &Identity, rate: Rate, want: u32) -> Result<Drawn, Unavailable>;

    /// How many nodes share these buckets, this one included: among so many the rate is divided while the buckets can't be reached.
    async fn sharers(&self) -> Result<u32, Unavailable>;
}
