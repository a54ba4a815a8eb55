//! Where the public keys come from that others sign their tokens with.

use async_trait::async_trait;

/// Why there is no key set. Passing, as far as anybody can tell: what was fetched before goes on counting.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeySetError(pub String);

#[async_trait]
pub trait KeySetSource: Send + Sync + 'static {
    /// The key set as it is now, as a JSON Web Key Set (RFC 7517). Bounded in size and time by the adapter.
    async fn fetch(&self) -> Result<Vec<u8>, KeySetError>;
}
