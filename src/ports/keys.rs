//! The API keys, kept by the SHA-256 of their secrets.

use async_trait::async_trait;

use crate::domain::ids::KeyId;
use crate::domain::key::Key;

use super::StoreError;

#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Durable on return.
    async fn add(&self, key: &Key) -> Result<(), StoreError>;

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError>;

    /// In order of creation.
    async fn list(&self) -> Result<Vec<Key>, StoreError>;

    /// `false` if there is none such.
    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError>;
}
