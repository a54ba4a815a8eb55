//! An uploaded package, from its bytes to files on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;

use crate::domain::function::Runtime;
use crate::domain::limits::Limits;
use crate::runtime::package::{self, PackageError};

/// Small, so that they are reached.
const UNPACKED_BYTES_MAX: u64 = 256 * 1024;
const ENTRIES_MAX: u64 = 32;

/// The runtime comes first, the package follows. `dir` is empty and stays so.
pub fn archive(bytes: &[u8], dir: &Path) {
    let [runtime, package @ ..] = bytes else { return };
    let runtime = Runtime::ALL[usize::from(*runtime) % Runtime::ALL.len()];
    let limits = Limits {
        zip_bytes: 1024 * 1024,
        unpacked_bytes: UNPACKED_BYTES_MAX,
        zip_entries: ENTRIES_MAX,
        ..Limits::default()
    };
    let package = Bytes::copy_from_slice(package);
    let code = dir.join("code");
    match package::inspect(package.clone(), runtime, None, &limits) {
        Ok(inspected) => {
            assert!(inspected.unpacked_bytes <= limits.unpacked_bytes);
            assert!(inspected.entries as u64 <= limits.zip_entries);
            package::unpack(&inspected.package, &code, &limits).expect("what was accepted is unpacked");
            let bytes = plain_bytes_below(&code);
            assert!(bytes <= inspected.unpacked_bytes, "{bytes} of {}", inspected.unpacked_bytes);
            assert!(code.join(inspected.entry_file.name()).is_file(), "no {:?}", inspected.entry_file);
            let with = package::add_file(&inspected.package, "main", b"\x7fELF", true).expect("a file can be added");
            fs::remove_dir_all(&code).expect("removed");
            // Where the package has a folder of that name it is refused; a panic is all that may not be.
            let _ = package::unpack(&with, &code, &limits);
        }
        Err(refused) => {
            assert_sentence(&refused);
            let _ = package::unpack(&package, &code, &limits);
            assert!(!code.exists() || plain_bytes_below(&code) <= limits.unpacked_bytes);
        }
    }
    if code.exists() {
        fs::remove_dir_all(&code).expect("removed");
    }
    assert_eq!(fs::read_dir(dir).expect("listed").count(), 0, "nothing was written beside");
}

/// One line that may stand in an answer, whatever the archive's names are.
fn assert_sentence(refused: &PackageError) {
    let text = refused.to_string();
    assert!(text.len() < 1000 && !text.chars().any(char::is_control), "{text:?}");
}

/// Bytes of the files below; all are plain files and folders, with plain modes.
fn plain_bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("its kind");
        assert!(meta.is_dir() || meta.is_file(), "{}", path.display());
        let mode = meta.permissions().mode() & 0o7777;
        assert!(mode == 0o755 || (mode == 0o644 && meta.is_file()), "{mode:o} {}", path.display());
        bytes += if meta.is_dir() { plain_bytes_below(&path) } else { meta.len() };
    }
    bytes
}
