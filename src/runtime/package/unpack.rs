//! Writing a package's files where they will be mounted from.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::domain::limits::Limits;

use super::PackageError;
use super::reader::{self, Entry, ReadFailure};

const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;
/// On the stack: packages are unpacked as they are published, and should leave no trace in the heap.
const CHUNK_BYTES: usize = 16 * 1024;
/// What file systems give out; an entry takes one for its own name and mode as well.
const BLOCK_BYTES: u64 = 4096;

/// Unpacks into the folder `into`, which must be empty, the caller's alone, and is made where it is missing; the folder that
/// holds it must exist. Files get mode 0644, or 0755 where the archive has an execute bit; `bootstrap` and `main` always 0755.
///
/// Every file is created anew (`O_EXCL`) below folders made here, and no link is ever made, so nothing is followed or
/// overwritten. After an error `into` may hold a part: remove it. Gives the bytes that the files take on disk, in whole blocks.
///
/// # Errors
/// As for [`super::inspect`], whose limits are applied again, and [`PackageError::Disk`].
pub fn unpack(package: &[u8], into: &Path, limits: &Limits) -> Result<u64, PackageError> {
    let disk = |error: std::io::Error| PackageError::Disk(error.to_string());
    let mut folders = Folders { root: into, made: BTreeSet::new() };
    folders.make("").map_err(disk)?;
    let mut blocks = 0;
    reader::visit(package, limits, |entry, contents| {
        blocks += 1;
        if entry.directory {
            return folders.make(&entry.name).map_err(ReadFailure::Disk);
        }
        if let Some((folder, _)) = entry.name.rsplit_once('/') {
            folders.make(folder).map_err(ReadFailure::Disk)?;
        }
        let bytes = write_file(into, entry, contents)?;
        blocks += bytes.div_ceil(BLOCK_BYTES);
        Ok(())
    })?;
    Ok(blocks * BLOCK_BYTES)
}

/// The folders made so far.
struct Folders<'a> {
    root: &'a Path,
    made: BTreeSet<String>,
}

impl Folders<'_> {
    fn make(&mut self, folder: &str) -> std::io::Result<()> {
        if self.made.contains(folder) {
            return Ok(());
        }
        if let Some((parent, _)) = folder.rsplit_once('/') {
            self.make(parent)?;
        }
        let path = if folder.is_empty() { self.root.to_owned() } else { self.root.join(folder) };
        match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
            Err(error) if !(folder.is_empty() && error.kind() == std::io::ErrorKind::AlreadyExists) => {
                return Err(error);
            }
            _ => {}
        }
        std::fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE))?; // whatever the umask is
        self.made.insert(folder.to_owned());
        Ok(())
    }
}

fn write_file(root: &Path, entry: &Entry, contents: &mut dyn Read) -> Result<u64, ReadFailure> {
    let mode = if entry.executable { EXECUTABLE_MODE } else { FILE_MODE };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(root.join(&entry.name))
        .map_err(ReadFailure::Disk)?;
    let mut chunk = [0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let read = contents.read(&mut chunk).map_err(ReadFailure::Package)?;
        if read == 0 {
            break;
        }
        file.write_all(&chunk[..read]).map_err(ReadFailure::Disk)?;
        bytes += read as u64;
    }
    file.set_permissions(Permissions::from_mode(mode)).map_err(ReadFailure::Disk)?;
    Ok(bytes)
}
