//! Token buckets that all controllers share: each draws several tokens at once and spends them by itself.

use async_trait::async_trait;

use crate::domain::rate::{Drawn, Rate};

use super::Unavailable;

/// Who is limited: the SHA-256 of a key's secret, never the secret.
pub type Identity = [u8; 32];

#[async_trait]
pub trait Buckets: Send + Sync + 'static {
    /// Takes up to `want` tokens, as many as there are.
    async fn draw(&self, identity: &Identity, rate: Rate, want: u32) -> Result<Drawn, Unavailable>;
}
