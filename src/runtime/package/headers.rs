//! What an archive says twice, compared. A zip has a directory at its end and a header before each entry; readers that go by the one
//! and readers that go by the other must see the same files, or what was looked at is not what is unpacked.

use zip::read::ZipFile;

use crate::domain::limits::Limits;

use super::PackageError;
use super::reader::{invalid, shown, too_many};

const END_RECORD: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
/// The end record and the longest comment after it.
const TAIL_BYTES: usize = END_BYTES + u16::MAX as usize;
const ZIP64_LOCATOR: &[u8] = b"PK\x06\x07";
const ZIP64_LOCATOR_BYTES: usize = 20;
const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";
const CENTRAL_BYTES: usize = 46;
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// General purpose flags (APPNOTE.TXT, 4.4.4): encrypted, strongly encrypted, directory encrypted.
const ENCRYPTED_FLAGS: u16 = 1 | 1 << 6 | 1 << 13;
/// Sizes and checksum follow the contents.
const SIZES_LATER_FLAG: u16 = 1 << 3;

/// The end record of an archive that ends with it and begins with its first entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    pub entries: u64,
    /// Where the directory begins.
    pub directory: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn find<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    haystack.windows(needle.len()).enumerate().filter_map(move |(at, window)| (window == needle).then_some(at))
}

/// Reads the end record, before anything is made of the directory: what it lists is bounded by then, and there is one reading of it.
pub(super) fn end(package: &[u8], limits: &Limits) -> Result<End, PackageError> {
    let tail = package.len().saturating_sub(TAIL_BYTES);
    let ends_here = |at: &usize| at + END_BYTES + usize::from(u16_at(package, at + 20)) == package.len();
    let found = find(&package[tail..], END_RECORD).map(|at| tail + at).filter(ends_here).last();
    let Some(at) = found else { return Err(not_an_archive(package)) };
    let record = &package[at..];
    let entries = u16_at(record, 10);
    let (size, directory) = (u32_at(record, 12), u32_at(record, 16));
    let located = at.checked_sub(ZIP64_LOCATOR_BYTES).is_some_and(|from| package[from..].starts_with(ZIP64_LOCATOR));
    if located || entries == u16::MAX || size == u32::MAX || directory == u32::MAX {
        return Err(invalid("the package is a ZIP64 archive, which packages are too small to need; zip it without"));
    }
    if u64::from(entries) > limits.zip_entries {
        return Err(too_many(entries.into(), limits));
    }
    if u16_at(record, 4) != 0 || u16_at(record, 6) != 0 || u16_at(record, 8) != entries {
        return Err(invalid("the package is one part of a split archive; zip it as one"));
    }
    if directory as usize + size as usize != at || (entries > 0 && !package.starts_with(LOCAL_HEADER)) {
        return Err(invalid(
            "the package is damaged or cut short, or has bytes before its first entry: its directory is not where it says",
        ));
    }
    if find(&package[directory as usize..at + 1], END_RECORD).next().is_some()
        || find(&record[END_BYTES - 1..], END_RECORD).next().is_some()
    {
        return Err(invalid("the package has a second end record in its directory or comment; zip it anew"));
    }
    check_directory(&package[directory as usize..at], entries)?;
    Ok(End { entries: entries.into(), directory: directory.into() })
}

/// The directory holds as many entries as are counted and nothing more: no file is hidden in it.
fn check_directory(directory: &[u8], entries: u16) -> Result<(), PackageError> {
    let mut rest = Some(directory);
    for _ in 0..entries {
        let header = rest.filter(|rest| rest.starts_with(CENTRAL_HEADER)).unwrap_or_default();
        let variable: usize = [28, 30, 32].map(|at| usize::from(u16_at(header, at))).iter().sum();
        rest = header.get(CENTRAL_BYTES + variable..);
    }
    match rest {
        Some([]) => Ok(()),
        _ => Err(invalid("the package lists other entries than its end record says; zip it anew")),
    }
}

fn not_an_archive(package: &[u8]) -> PackageError {
    if package.starts_with(b"PK") {
        invalid("the package is damaged, cut short, or has bytes after its end: it does not end as a zip archive does")
    } else {
        invalid("the package is not a zip archive; send a zip, or a single source file under its own name")
    }
}

/// Compares the header before an entry's contents with what the directory said of it.
pub(super) fn check_local<R: std::io::Read>(package: &[u8], file: &ZipFile<'_, R>) -> Result<(), PackageError> {
    let name = String::from_utf8_lossy(file.name_raw());
    let refuse = |why: &str| Err(invalid(format!("{} in the package {why}", shown(&name))));
    let header = usize::try_from(file.header_start()).ok().and_then(|at| package.get(at..)).unwrap_or_default();
    if !header.starts_with(LOCAL_HEADER) {
        return refuse("has no header of its own; the package is damaged");
    }
    let (flags, method) = (u16_at(header, 6), u16_at(header, 8));
    if flags & ENCRYPTED_FLAGS != 0 {
        return refuse("is encrypted; zip the package without a password");
    }
    let length = usize::from(u16_at(header, 26));
    if header.get(LOCAL_BYTES..LOCAL_BYTES + length) != Some(file.name_raw()) {
        return refuse("has another name in its own header; zip the package anew");
    }
    let (compressed, size) = (u32_at(header, 18), u32_at(header, 22));
    let said = [(compressed, file.compressed_size()), (size, file.size())];
    // All ones: the size is in an extra field.
    let differs = said.iter().any(|(local, listed)| *local != u32::MAX && u64::from(*local) != *listed);
    let left_open = flags & SIZES_LATER_FLAG != 0 && compressed == 0 && size == 0;
    if differs && !left_open {
        return refuse("has another size in its own header; zip the package anew");
    }
    if method != method_number(file.compression()) {
        return refuse("has another compression in its own header; zip the package anew");
    }
    Ok(())
}

fn method_number(method: zip::CompressionMethod) -> u16 {
    if method == zip::CompressionMethod::Stored { 0 } else { 8 }
}
