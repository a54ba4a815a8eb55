//! The API keys, kept by the SHA-256 of their secrets.

use async_trait::async_trait;

use crate::domain::ids::{FunctionId, KeyId};
use crate::domain::key::Key;
use crate::domain::time::Timestamp;

use super::StoreError;

#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Durable on return.
    async fn add(&self, key: &Key) -> Result<(), StoreError>;

    /// Adds the first key of all, durable on return. `false`: there is one, perhaps made by another controller at this moment.
    async fn add_first(&self, key: &Key) -> Result<bool, StoreError>;

    async fn by_secret(&self, sha256: &[u8; 32]) -> Result<Option<Key>, StoreError>;

    /// In order of creation.
    async fn list(&self) -> Result<Vec<Key>, StoreError>;

    /// `false` if there is none such.
    async fn revoke(&self, id: KeyId) -> Result<bool, StoreError>;

    /// Revokes every access key of a function, and says which those were.
    async fn revoke_of(&self, function: FunctionId) -> Result<Vec<KeyId>, StoreError>;

    /// Notes that a key was used, soon and without waiting; a crash within the moment loses it.
    fn used(&self, id: KeyId, at: Timestamp);
}
