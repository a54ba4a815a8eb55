//! New keys, and the first of them all.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::controller::ids;
use crate::domain::ids::Owner;
use crate::domain::key::{Key, Scope};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::keys::KeyStore;

use super::{ADMIN_OWNER, hash};

/// A new key, and its secret, which is kept nowhere.
pub fn new_key(name: String, owner: Owner, scopes: Vec<Scope>, now: Timestamp) -> (Key, String) {
    let secret = ids::secret();
    let key = Key {
        id: ids::key_id(now),
        name,
        description: String::new(),
        owner,
        scopes,
        function: None,
        secret_sha256: hash(secret.as_bytes()),
        created_at: now,
        expires_at: None,
        last_used_at: None,
    };
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
/// never a key whose secret nobody has. Of several controllers that start at once one makes the key, and it alone keeps a file.
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
    if keys.add_first(&key).await? {
        return Ok(Some(path));
    }
    std::fs::remove_file(&path).map_err(|cause| AdminKeyError::File { path, cause })?;
    Ok(None)
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
