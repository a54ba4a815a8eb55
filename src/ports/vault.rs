//! The vault: seals what may not lie readable in a store, and opens it again.
//!
//! A seal is bound to what it is about (which function, which version), so that nobody can pass one row's secret off as another's by
//! copying bytes. A service that keeps keys elsewhere fits behind this port: its data key is fetched once, at the start.

/// Why something could not be sealed or opened. No variant shows what is inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// A person must bring the key.
    #[error("it is sealed with key {key}, which is not in {place}")]
    UnknownKey { key: String, place: String },
    /// Not what this vault sealed about this: changed, cut, or somebody else's.
    #[error("what is sealed was changed, or belongs elsewhere")]
    Damaged,
    #[error("it could not be sealed")]
    NotSealed,
}

pub trait Vault: Send + Sync + 'static {
    /// `plain`, so that only this vault can read it, and only as what it is `about`. Never the same bytes twice.
    fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, VaultError>;

    /// What was sealed. Whoever asks wipes it when done.
    fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, VaultError>;

    /// Whether it is sealed with the key that seals now: else it is worth sealing again.
    fn is_current(&self, sealed: &[u8]) -> bool;
}
