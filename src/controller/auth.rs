//! Who is calling: API keys, found by the SHA-256 of their secret, through a bounded cache that a revocation clears.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::ids::{InvocationId, KeyId, Owner};
use crate::domain::key::{Key, Scope};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::keys::KeyStore;

use super::error::{ApiError, Code};
use super::ids;

/// A cached key is read again after this, should news of its revocation have been lost.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// Keys remembered; the next one empties the cache.
const KEYS_MAX: usize = 10_000;
/// A secret longer than this is not one of ours, and not worth hashing.
const SECRET_BYTES_MAX: usize = 256;

pub const ADMIN_OWNER: &str = "admin";

/// The caller of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub key: Arc<Key>,
    pub request_id: InvocationId,
}

impl Caller {
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        self.require_any(&[scope])
    }

    pub fn require_any(&self, scopes: &[Scope]) -> Result<(), ApiError> {
        if scopes.iter().any(|scope| self.key.allows(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        Err(ApiError::new(
            Code::Forbidden,
            format!("this needs a key with the scope {}; ask an admin for one", names.join(" or ")),
        ))
    }

    pub fn owner(&self) -> &Owner {
        &self.key.owner
    }

    /// What others own does not exist for a caller, unless it is an admin.
    pub fn sees(&self, owner: &Owner) -> bool {
        self.key.is_admin() || self.key.owner == *owner
    }

    /// Whose things a listing shows; `None`: everybody's.
    pub fn listing_owner(&self) -> Option<&Owner> {
        (!self.key.is_admin()).then_some(&self.key.owner)
    }
}

struct Cached {
    key: Arc<Key>,
    read_at: Duration,
}

/// The keys in use.
pub struct Keys {
    store: Arc<dyn KeyStore>,
    cache: RwLock<HashMap<[u8; 32], Cached>>,
}

impl Keys {
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store, cache: RwLock::default() }
    }

    pub fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    /// The key that the request's headers carry.
    pub async fn authenticate(&self, headers: &HeaderMap, now: Duration) -> Result<Arc<Key>, ApiError> {
        let secret = secret_of(headers)
            .ok_or_else(|| unauthorized("send an API key as `x-api-key: KEY` or `Authorization: Bearer KEY`"))?;
        let hash = hash(secret);
        if let Some(key) = self.cached(&hash, now) {
            return Ok(key);
        }
        match self.store.by_secret(&hash).await? {
            Some(key) if bool::from(key.secret_sha256.ct_eq(&hash)) => Ok(self.remember(hash, key, now)),
            _ => {
                self.cache.write().unwrap_or_else(PoisonError::into_inner).remove(&hash);
                Err(unauthorized("this API key is not known; check it, or ask an admin for one"))
            }
        }
    }

    fn cached(&self, hash: &[u8; 32], now: Duration) -> Option<Arc<Key>> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get(hash)?;
        let fresh = now.saturating_sub(cached.read_at) < FRESH_FOR;
        (fresh && bool::from(cached.key.secret_sha256.ct_eq(hash))).then(|| cached.key.clone())
    }

    fn remember(&self, hash: [u8; 32], key: Key, now: Duration) -> Arc<Key> {
        let key = Arc::new(key);
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= KEYS_MAX {
            cache.clear();
        }
        cache.insert(hash, Cached { key: key.clone(), read_at: now });
        key
    }

    pub fn forget(&self, id: KeyId) {
        self.cache.write().unwrap_or_else(PoisonError::into_inner).retain(|_, cached| cached.key.id != id);
    }

    pub fn forget_all(&self) {
        self.cache.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(Code::Unauthorized, message)
}

fn secret_of(headers: &HeaderMap) -> Option<&[u8]> {
    let secret = match headers.get("x-api-key") {
        Some(value) => value.as_bytes(),
        None => bearer(headers)?,
    };
    (1..=SECRET_BYTES_MAX).contains(&secret.len()).then_some(secret)
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

pub fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A new key, and its secret, which is kept nowhere.
pub fn new_key(name: String, owner: Owner, scopes: Vec<Scope>, now: Timestamp) -> (Key, String) {
    let secret = ids::secret();
    let key =
        Key { id: ids::key_id(now), name, owner, scopes, secret_sha256: hash(secret.as_bytes()), created_at: now };
    (key, secret)
}

#[derive(Debug, thiserror::Error)]
pub enum AdminKeyError {
    #[error("write the admin key to {path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where no key exists, makes one with every right, writes its secret to `<data_dir>/admin.key` (mode 0600) and returns that path.
///
/// The file is written first: a crash between the two leaves a file with a useless secret, which the next start replaces, and
/// never a key whose secret nobody has.
pub async fn ensure_admin_key(
    keys: &dyn KeyStore,
    data_dir: &Path,
    now: Timestamp,
) -> Result<Option<PathBuf>, AdminKeyError> {
    if !keys.list().await?.is_empty() {
        return Ok(None);
    }
    let (key, secret) = new_key("admin".to_owned(), Owner::new(ADMIN_OWNER), vec![Scope::Admin], now);
    let path = data_dir.join("admin.key");
    write_private(&path, &secret).map_err(|cause| AdminKeyError::File { path: path.clone(), cause })?;
    keys.add(&key).await?;
    Ok(Some(path))
}

/// Replaces the file as a whole, readable by its owner alone from its first moment.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("key.new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Which of a caller's rights a look at one invocation needs: whoever may invoke may follow what was invoked.
pub const FOLLOW: [Scope; 2] = [Scope::Read, Scope::Invoke];
