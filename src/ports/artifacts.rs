//! The artifact store: code, large payloads, outputs and logs, each named by the SHA-256 of its bytes.

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::ids::Digest;

use super::StoreError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ArtifactError {
    #[error("no such artifact")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[async_trait]
pub trait ArtifactStore: Send + Sync + 'static {
    /// Durable on return. Storing the same bytes again changes nothing.
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError>;

    /// The bytes, checked against their name: damage is `Corrupt`, never wrong bytes.
    async fn get(&self, digest: Digest) -> Result<Bytes, ArtifactError>;

    /// Keeps the artifact from collection for the store's retention from now on; `false` if it is not there.
    async fn touch(&self, digest: Digest) -> Result<bool, StoreError>;

    /// Whether storing goes over a network, so that who waits for a call's answer should not wait for it as well.
    fn is_far(&self) -> bool {
        false
    }
}
