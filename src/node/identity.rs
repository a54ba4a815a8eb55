//! Names of this node: of its run, and of its data directory.

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
pub fn instance(data_dir: &Path) -> String {
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hex::encode(&digest[..6])
}
