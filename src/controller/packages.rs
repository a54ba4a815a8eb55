//! What the controller needs to know of uploaded code, as a port of its own: the runtime room implements it.

use bytes::Bytes;

use crate::domain::function::Runtime;
use crate::domain::limits::Limits;

/// What an archive turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What to store: the bytes given, or the same files without the one folder they were all wrapped in.
    pub package: Bytes,
    /// It holds sources that must be compiled before they can run.
    pub needs_build: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Larger than the limits, packed or unpacked, or too many entries.
    #[error("{0}")]
    TooLarge(String),
    /// Not an archive, or one that must not or cannot be run. One sentence.
    #[error("{0}")]
    Invalid(String),
}

/// Reads code packages. Takes processor time in proportion to the unpacked size: not for an async thread.
pub trait Packages: Send + Sync + 'static {
    fn inspect(
        &self,
        package: Bytes,
        runtime: Runtime,
        handler: Option<&str>,
        limits: &Limits,
    ) -> Result<Inspected, PackageError>;

    /// An archive that holds this one source file under the name its runtime looks for.
    fn wrap_source(
        &self,
        runtime: Runtime,
        handler: Option<&str>,
        file_name: Option<&str>,
        source: &[u8],
    ) -> Result<Bytes, PackageError>;
}

/// Whether the bytes claim to be an archive; all else is a source file.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK")
}
