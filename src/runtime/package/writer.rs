//! Making packages. The same files always make the same bytes, so that equal code has one digest.

use std::io::{Cursor, Write};

use bytes::Bytes;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use crate::domain::function::Runtime;

use super::PackageError;
use super::convention::{ELF_MAGIC, source_file_name};
use super::reader::invalid;

/// A file of one block takes no less room on a disk when it is compressed, and its compressor 0.3 MB while it works: a thousand functions
/// deployed in a row left that much of the heap in pieces.
const STORED_BYTES_MAX: usize = 4096;

/// A package of one file, named as `runtime` expects it; `file_name`, as it was uploaded, only decides between the kinds of
/// JavaScript. With a `handler` the file gets the name that the handler calls for.
///
/// # Errors
/// [`PackageError::Invalid`] where the source is empty.
pub fn from_source(
    runtime: Runtime,
    handler: Option<&str>,
    file_name: Option<&str>,
    source: &[u8],
) -> Result<Bytes, PackageError> {
    if source.is_empty() {
        return Err(invalid("the source file is empty"));
    }
    if !source.starts_with(ELF_MAGIC) || !is_compiled(runtime) {
        check_text(runtime, source)?;
    }
    let (name, executable) = source_file_name(runtime, handler, file_name, source);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    write(&mut writer, &name, source, executable).map_err(unwritable)?;
    finish(writer)
}

/// Programs that were compiled elsewhere are files of these runtimes.
fn is_compiled(runtime: Runtime) -> bool {
    matches!(runtime, Runtime::Provided | Runtime::Go | Runtime::Cpp)
}

/// Refuses what can't be source code, and says what it is where its first bytes tell.
fn check_text(runtime: Runtime, source: &[u8]) -> Result<(), PackageError> {
    if std::str::from_utf8(source).is_ok_and(|text| !text.contains('\0')) && !source.starts_with(ELF_MAGIC) {
        return Ok(());
    }
    let looks_like = KINDS.iter().find(|(magic, _)| source.starts_with(magic)).map(|(_, kind)| *kind);
    let is_tar = source.get(257..262) == Some(b"ustar");
    let what = looks_like.unwrap_or(if is_tar { "a tar archive" } else { "no UTF-8 text" });
    Err(invalid(format!("the file is {what}, not {runtime} source; send source code, or a zip archive")))
}

/// What people send by mistake, by its first bytes.
const KINDS: [(&[u8], &str); 9] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (ELF_MAGIC, "a Linux program"),
    (b"MZ", "a Windows program"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
];

/// The package with one more file, or with another in its place.
///
/// # Errors
/// [`PackageError::Invalid`] where `package` can't be read.
pub fn add_file(package: &[u8], name: &str, contents: &[u8], executable: bool) -> Result<Bytes, PackageError> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    copy(package, &mut writer, |old| (old != name).then(|| old.to_owned()))?;
    write(&mut writer, name, contents, executable).map_err(unwritable)?;
    finish(writer)
}

/// The package's files below `folder` (with its slash), without it.
pub(super) fn without_folder(package: &[u8], folder: &str) -> Result<Bytes, PackageError> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    copy(package, &mut writer, |old| {
        let old = old.strip_prefix("./").unwrap_or(old);
        old.strip_prefix(folder).filter(|rest| !rest.is_empty()).map(str::to_owned)
    })?;
    finish(writer)
}

type Writer = ZipWriter<Cursor<Vec<u8>>>;

/// Copies entries, compressed as they are, under the names that `rename` gives; `None` leaves one out.
fn copy(package: &[u8], to: &mut Writer, rename: impl Fn(&str) -> Option<String>) -> Result<(), PackageError> {
    let unreadable = |error: ZipError| invalid(format!("the package can't be read: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(package)).map_err(unreadable)?;
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(unreadable)?;
        // As it was checked: in UTF-8, whatever else the archive says of its names' encoding.
        let name = std::str::from_utf8(file.name_raw()).map(&rename).map_err(|_| invalid("a name is not UTF-8"))?;
        if let Some(name) = name {
            to.raw_copy_file_rename(file, name).map_err(unreadable)?;
        }
    }
    Ok(())
}

fn write(to: &mut Writer, name: &str, contents: &[u8], executable: bool) -> Result<(), ZipError> {
    let small = contents.len() <= STORED_BYTES_MAX;
    let options = SimpleFileOptions::default()
        .compression_method(if small { CompressionMethod::Stored } else { CompressionMethod::Deflated })
        .last_modified_time(DateTime::default())
        .unix_permissions(if executable { 0o755 } else { 0o644 });
    to.start_file(name, options)?;
    to.write_all(contents)?;
    Ok(())
}

fn finish(writer: Writer) -> Result<Bytes, PackageError> {
    Ok(Bytes::from(writer.finish().map_err(unwritable)?.into_inner()))
}

fn unwritable(error: ZipError) -> PackageError {
    invalid(format!("the package can't be written: {error}"))
}
