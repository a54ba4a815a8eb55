//! Ports: what the rooms need of the world, in the domain's words. Adapters implement them; nobody here knows which.
//!
//! Each port has one error enum whose variants are what a caller can do about it. Every adapter of a port passes the same suite
//! in `tests/contract/`.

pub mod address;
pub mod artifacts;
pub mod audit;
pub mod buckets;
pub mod bus;
pub mod claims;
pub mod clock;
pub mod disk;
pub mod executor;
pub mod instance;
pub mod invocations;
pub mod key_set;
pub mod keys;
pub mod lessons;
pub mod locks;
pub mod queue;
pub mod record_log;
pub mod registry;
pub mod roster;
pub mod sandbox;
pub mod signal;
pub mod usage;
pub mod vault;

/// What every store can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Passing: try again after a while.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The store's own bound is reached: shed load.
    #[error("the store is full: {0}")]
    Full(String),
    /// What is stored can't be read back; a person must look.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The caller's mistake: a cursor is what an earlier page of the same list ended with.
    #[error("this cursor is not from an earlier page: start again without one")]
    InvalidCursor,
}

impl StoreError {
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}

/// Something that nodes share does not answer: go on without it, or try again after a while.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not available: {0}")]
pub struct Unavailable(pub String);
