//! Directories and files that nobody but their owner reads.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes the directory, or makes sure that nobody but its owner enters it.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let owner = fs::metadata(path)?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        tracing::warn!(path = %path.display(), owner, "this directory is another user's, who can read and change what is in it: chown it");
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Writes a file that is not there yet, whole or not at all, and on the disk when this returns. `false`: somebody else's was first.
pub(super) fn create(path: &Path, contents: &[u8]) -> io::Result<bool> {
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(contents)?;
    file.sync_all()?;
    // Unlike a rename, a link never takes the place of what is there.
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        other => other?,
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(true)
}
