//! The function registry: functions and their immutable versions.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::function::{Function, Version};
use crate::domain::ids::{FunctionId, Owner, VersionKey};
use crate::domain::page::Page;

use super::StoreError;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The owner has a function of this name.
    #[error("a function of this name exists")]
    NameTaken,
    #[error("no such function")]
    NotFound,
    /// Another update was published first: read again, then decide.
    #[error("another version was published meanwhile")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Stores a function and its version 1, both or neither, durable on return.
    async fn create(&self, function: &Function, version: &Version) -> Result<(), RegistryError>;

    /// Publishes `version`, whose number must be one above the current one, and makes it current.
    async fn publish(&self, version: &Version) -> Result<Function, RegistryError>;

    /// By id, or by name among `owner`'s.
    async fn function(&self, id: FunctionId) -> Result<Option<Function>, StoreError>;
    async fn function_named(&self, owner: &Owner, name: &str) -> Result<Option<Function>, StoreError>;

    async fn version(&self, key: VersionKey) -> Result<Option<Arc<Version>>, StoreError>;

    /// Current versions in order of function name; `owner` of `None` means everybody's.
    async fn list(
        &self,
        owner: Option<&Owner>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<(Function, Arc<Version>)>, StoreError>;

    /// How many functions `owner` has, or everybody together.
    async fn count(&self, owner: Option<&Owner>) -> Result<u64, StoreError>;

    /// All versions of one function, newest first.
    async fn versions(&self, id: FunctionId, limit: usize) -> Result<Vec<Arc<Version>>, StoreError>;

    /// The function is no longer found; its versions stay readable for the jobs that still name them.
    async fn delete(&self, id: FunctionId) -> Result<(), RegistryError>;
}
