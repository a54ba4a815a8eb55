//! Packages: zip archives with a function's code. What comes in is checked here, whole, before anything is stored or unpacked;
//! nothing an archive says of itself (sizes, names, types) is believed.
//!
//! ```text
//! upload → from_source (a single file) ┐
//! upload → (a zip)                     ┴→ inspect → artifact store → unpack → /var/task
//! compile at deploy: package + built main → add_file
//! ```

mod convention;
mod headers;
mod reader;
mod unpack;
mod writer;

use bytes::Bytes;

pub use convention::EntryFile;
pub use unpack::unpack;
pub use writer::{add_file, from_source};

use crate::domain::function::Runtime;
use crate::domain::limits::Limits;

use reader::Checked;

/// Why a package was refused. Each message is one sentence for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Beyond a limit: 413.
    #[error("{0}")]
    TooLarge(String),
    /// Not a package that can run: 422.
    #[error("{0}")]
    Invalid(String),
    /// This machine's disk failed, not the package: 500.
    #[error("can't unpack the package: {0}")]
    Disk(String),
}

/// A package that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What to store: the bytes given, or the same files without the one folder they were all wrapped in.
    pub package: Bytes,
    /// Of the files, as measured while inflating.
    pub unpacked_bytes: u64,
    pub entries: usize,
    pub entry_file: EntryFile,
}

impl Inspected {
    /// Whether the package holds sources only, to be compiled before it can run.
    pub fn needs_build(&self) -> bool {
        matches!(self.entry_file, EntryFile::Source(_))
    }
}

/// Checks a package without writing anything: that it is a zip within the limits, that no entry leads outside, and that the
/// file is there which `runtime` and `handler` call for. Inflates all of it once; run it off the async threads.
///
/// # Errors
/// [`PackageError::TooLarge`] or [`PackageError::Invalid`].
pub fn inspect(
    package: Bytes,
    runtime: Runtime,
    handler: Option<&str>,
    limits: &Limits,
) -> Result<Inspected, PackageError> {
    let Checked { files, bytes: unpacked_bytes, entries } = reader::check(&package, limits)?;
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let (package, folder, entry_file) = match convention::find_entry_file(runtime, handler, &names) {
        Ok(entry_file) => (package, String::new(), entry_file),
        Err(not_at_top) => {
            let Some(folder) = convention::single_top_folder(&names) else { return Err(not_at_top) };
            let inner: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(&folder)).collect();
            let entry_file = convention::find_entry_file(runtime, handler, &inner).map_err(|_| not_at_top)?;
            (writer::without_folder(&package, &folder)?, folder, entry_file)
        }
    };
    let entry_path = format!("{folder}{}", entry_file.name());
    if files.iter().any(|file| file.name == entry_path && file.bytes == 0) {
        return Err(reader::invalid(format!("{} in the package is empty", entry_file.name())));
    }
    Ok(Inspected { package, unpacked_bytes, entries, entry_file })
}

#[cfg(test)]
mod tests;
