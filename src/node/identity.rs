//! Names of this node: of its run, and of its data directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::ids::WorkerId;

/// Another one at every start.
pub fn worker_id() -> WorkerId {
    WorkerId(Uuid::now_v7())
}

/// The same at every start on this data directory, and another for every other: under this name a restart finds the control
/// groups that an earlier run left.
///
/// The path alone would not do: in containers that share the host's control groups, other directories have the same path.
pub fn instance(data_dir: &Path) -> String {
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let mut digest = Sha256::new();
    if let Ok(meta) = path.metadata() {
        digest.update(meta.dev().to_le_bytes());
        digest.update(meta.ino().to_le_bytes());
    }
    digest.update(path.as_os_str().as_encoded_bytes());
    hex::encode(&digest.finalize()[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_name_and_another_at_its_path_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::create_dir(&path).unwrap();
        let first = instance(&path);
        assert_eq!(instance(&path), first);
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_ne!(instance(&path), first);
    }
}
