//! A version's environment as a store keeps it: sealed by the vault, and bound to its version.

use zeroize::Zeroizing;

use crate::domain::env::Env;
use crate::domain::ids::VersionKey;
use crate::ports::StoreError;
use crate::ports::vault::Vault;

/// What a seal is bound to: where it is kept, the function, the version's number.
pub(super) fn about(key: VersionKey) -> Vec<u8> {
    [b"versions.env".as_slice(), key.function.0.as_bytes(), &key.number.to_be_bytes()].concat()
}

pub(super) fn seal(vault: &dyn Vault, key: VersionKey, env: &Env) -> Result<Vec<u8>, StoreError> {
    let plain = serde_json::to_vec(env).map(Zeroizing::new).map_err(|error| failed("write", key, &error))?;
    vault.seal(&plain, &about(key)).map_err(|error| failed("seal", key, &error))
}

pub(super) fn open(vault: &dyn Vault, key: VersionKey, sealed: &[u8]) -> Result<Env, StoreError> {
    let plain = vault.open(sealed, &about(key)).map(Zeroizing::new).map_err(|error| failed("open", key, &error))?;
    serde_json::from_slice(&plain).map_err(|error| failed("read", key, &error))
}

fn failed(step: &str, key: VersionKey, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{step} the environment of {key:?}: {error}"))
}
