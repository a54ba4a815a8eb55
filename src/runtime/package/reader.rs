//! Reading an archive with distrust: every entry's name and type checked, every size counted while it inflates.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use crate::domain::limits::{Limits, MIB};

use super::{PackageError, headers};

pub(super) type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Below `/var/task`, so that the whole path stays far from PATH_MAX.
const NAME_BYTES_MAX: usize = 1024;
/// NAME_MAX of every common file system.
const COMPONENT_BYTES_MAX: usize = 255;
const DEPTH_MAX: usize = 64;
/// A file that inflates by more than this is a bomb: deflate reaches 1032, text and binaries stay below 50.
const RATIO_MAX: u64 = 250;
/// Files up to this size may have any ratio: a page of zeros is no bomb.
const RATIO_FREE_BYTES: u64 = 16 * MIB;
const CHUNK_BYTES: usize = 64 * 1024;
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// A regular file of a package that was checked.
pub(super) struct File {
    /// Relative, normalised, UTF-8.
    pub name: String,
    pub bytes: u64,
}

pub(super) struct Checked {
    pub files: Vec<File>,
    pub bytes: u64,
    pub entries: usize,
}

/// Opens the archive, whose directory may not list more than the limit.
pub(super) fn open<'a>(package: &'a [u8], limits: &Limits) -> Result<Archive<'a>, PackageError> {
    let size = package.len() as u64;
    if size > limits.zip_bytes {
        return Err(too_large(format!("the package has {size} bytes; at most {} are allowed", limits.zip_bytes)));
    }
    if package.is_empty() {
        return Err(invalid("the package is empty: 0 bytes were sent"));
    }
    let end = headers::end(package, limits)?;
    let unreadable = |error: ZipError| invalid(format!("the package is damaged or cut short: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(package)).map_err(unreadable)?;
    if archive.has_duplicate_names() {
        return Err(invalid("the package has two entries of the same name"));
    }
    if archive.len() as u64 != end.entries || archive.central_directory_start() != end.directory {
        return Err(invalid("the package lists other entries than its end record says; zip it anew"));
    }
    // A bomb that stays small by using the same contents for many files.
    if archive.has_overlapping_entries().map_err(unreadable)? {
        return Err(invalid("the package has entries that overlap, as only a bomb has"));
    }
    Ok(archive)
}

pub(super) fn too_many(entries: u64, limits: &Limits) -> PackageError {
    too_large(format!("the package has {entries} entries; at most {} are allowed", limits.zip_entries))
}

pub(super) fn too_large(message: impl Into<String>) -> PackageError {
    PackageError::TooLarge(message.into())
}

pub(super) fn invalid(message: impl Into<String>) -> PackageError {
    PackageError::Invalid(message.into())
}

/// Checks all entries and inflates them into nothing.
pub(super) fn check(package: &[u8], limits: &Limits) -> Result<Checked, PackageError> {
    let mut files = Vec::new();
    let visited = visit(package, limits, |entry, contents| {
        let bytes = std::io::copy(contents, &mut std::io::sink()).map_err(ReadFailure::Package)?;
        if !entry.directory {
            files.push(File { name: entry.name.clone(), bytes });
        }
        Ok(())
    })?;
    if files.is_empty() {
        return Err(invalid("the package has no files in it"));
    }
    Ok(Checked { files, bytes: visited.bytes, entries: visited.entries })
}

/// An entry whose name and type are in order.
pub(super) struct Entry {
    pub name: String,
    pub directory: bool,
    pub executable: bool,
}

/// Why visiting an entry's contents stopped: the archive, or what the contents were written to.
pub(super) enum ReadFailure {
    Package(std::io::Error),
    Disk(std::io::Error),
}

pub(super) struct Visited {
    pub bytes: u64,
    pub entries: usize,
}

/// Hands every entry and its contents, limited, to `take`, in the archive's order.
pub(super) fn visit(
    package: &[u8],
    limits: &Limits,
    mut take: impl FnMut(&Entry, &mut dyn Read) -> Result<(), ReadFailure>,
) -> Result<Visited, PackageError> {
    let mut archive = open(package, limits)?;
    let mut names = Names::default();
    let mut bytes = 0;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|error| unreadable(index, &error))?;
        headers::check_local(package, &file)?;
        let Some(entry) = describe(&file)? else { continue };
        names.add(&entry)?;
        let declared = file.size();
        let budget =
            Budget { left: limits.unpacked_bytes - bytes, compressed: file.compressed_size(), ..Budget::default() };
        let mut contents = Bounded { inner: &mut file, budget };
        let taken = take(&entry, &mut contents);
        bytes += contents.budget.read;
        contents.budget.verdict(&entry.name, limits)?;
        let contents_bytes = contents.budget.read;
        match taken {
            Ok(()) if !entry.directory && contents_bytes != declared => {
                let name = shown(&entry.name);
                return Err(invalid(format!(
                    "{name} in the package has {contents_bytes} bytes, not {declared} as it says"
                )));
            }
            Ok(()) => {}
            Err(ReadFailure::Package(error)) => {
                return Err(invalid(format!("{} in the package can't be inflated: {error}", shown(&entry.name))));
            }
            Err(ReadFailure::Disk(error)) => return Err(PackageError::Disk(error.to_string())),
        }
    }
    Ok(Visited { bytes, entries: archive.len() })
}

fn unreadable(index: usize, error: &ZipError) -> PackageError {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
            invalid("the package is encrypted; zip it without a password")
        }
        ZipError::CompressionMethodNotSupported(_) => {
            invalid("the package is compressed by another method than deflate; zip it with the standard one")
        }
        error => invalid(format!("entry {} of the package can't be read: {error}", index + 1)),
    }
}

/// `None` for the archive's own root (`./`), which needs no entry.
fn describe<R: Read>(file: &ZipFile<'_, R>) -> Result<Option<Entry>, PackageError> {
    let raw = std::str::from_utf8(file.name_raw()).map_err(|_| {
        invalid(format!("{} in the package is not named in UTF-8", shown(&String::from_utf8_lossy(file.name_raw()))))
    })?;
    if file.encrypted() {
        return Err(invalid("the package is encrypted; zip it without a password"));
    }
    let mode = file.unix_mode().unwrap_or(0);
    let directory = raw.ends_with('/');
    if directory && file.size() > 0 {
        return Err(invalid(format!("{} in the package is a folder with contents of its own", shown(raw))));
    }
    match mode & S_IFMT {
        0 | S_IFREG => {}
        S_IFDIR if directory => {}
        S_IFLNK => {
            return Err(invalid(format!(
                "{} in the package is a symbolic link; zip the file it points to instead",
                shown(raw)
            )));
        }
        _ => return Err(invalid(format!("{} in the package is neither a file nor a folder", shown(raw)))),
    }
    let name = normalise(raw)?;
    // A zip made on Windows has no mode bits, and what is to be executed must be.
    let executable = mode & 0o111 != 0 && !directory || matches!(name.as_str(), "bootstrap" | "main");
    Ok((!name.is_empty()).then_some(Entry { name, directory, executable }))
}

/// The name without `.` parts and the slash at a folder's end. Refuses all that could lead outside or that no Linux file can have.
fn normalise(raw: &str) -> Result<String, PackageError> {
    let refuse = |why: &str| Err(invalid(format!("{} in the package {why}", shown(raw))));
    if raw.is_empty() {
        return refuse("has no name");
    }
    if raw.starts_with('/') || raw.as_bytes().get(1) == Some(&b':') {
        return refuse("is an absolute path; entries must be relative");
    }
    if raw.contains('\\') {
        return refuse("has a backslash in its name; zip it with forward slashes");
    }
    if raw.chars().any(char::is_control) {
        return refuse("has a NUL or another control character in its name");
    }
    if raw.len() > NAME_BYTES_MAX {
        return refuse("has too long a path");
    }
    let mut parts = Vec::new();
    for part in raw.strip_suffix('/').unwrap_or(raw).split('/') {
        match part {
            "." => {}
            ".." => return refuse("leads out of the package by \"..\""),
            "" => return refuse("has an empty part in its path"),
            long if long.len() > COMPONENT_BYTES_MAX => return refuse("has too long a part in its path"),
            part => parts.push(part),
        }
    }
    if parts.len() > DEPTH_MAX {
        return refuse("lies too deep");
    }
    Ok(parts.join("/"))
}

/// A name as it may stand in a message: quoted, escaped, cut.
pub(super) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    let cut: String = name.chars().take(CHARS_MAX).collect();
    format!("{cut:?}{}", if cut.len() < name.len() { "…" } else { "" })
}

/// The names so far: no two alike, and none both file and folder.
#[derive(Default)]
struct Names {
    files: HashSet<String>,
    /// Folders, listed or implied; the value says whether it was listed.
    folders: HashMap<String, bool>,
}

impl Names {
    fn add(&mut self, entry: &Entry) -> Result<(), PackageError> {
        let twice = || invalid(format!("{} is in the package twice", shown(&entry.name)));
        let both = |name: &str| invalid(format!("{} is both a file and a folder in the package", shown(name)));
        for (at, _) in entry.name.match_indices('/') {
            let folder = &entry.name[..at];
            if self.files.contains(folder) {
                return Err(both(folder));
            }
            if !self.folders.contains_key(folder) {
                self.folders.insert(folder.to_owned(), false);
            }
        }
        if entry.directory {
            if self.files.contains(&entry.name) {
                return Err(both(&entry.name));
            }
            return if self.folders.insert(entry.name.clone(), true) == Some(true) { Err(twice()) } else { Ok(()) };
        }
        if self.folders.contains_key(&entry.name) {
            return Err(both(&entry.name));
        }
        if self.files.insert(entry.name.clone()) { Ok(()) } else { Err(twice()) }
    }
}

/// What an entry may still inflate to, and what it has.
#[derive(Default)]
struct Budget {
    left: u64,
    compressed: u64,
    read: u64,
    exceeded: bool,
    bomb: bool,
}

impl Budget {
    fn count(&mut self, read: usize) -> bool {
        self.read += read as u64;
        self.exceeded |= self.read > self.left;
        self.bomb |= self.read > RATIO_FREE_BYTES && self.read / RATIO_MAX > self.compressed;
        !self.exceeded && !self.bomb
    }

    fn verdict(&self, name: &str, limits: &Limits) -> Result<(), PackageError> {
        if self.exceeded {
            return Err(too_large(format!(
                "the package unpacks to more than the {} bytes allowed",
                limits.unpacked_bytes
            )));
        }
        if self.bomb {
            return Err(too_large(format!(
                "{} in the package unpacks to more than {RATIO_MAX} times its size, as only a bomb does",
                shown(name)
            )));
        }
        Ok(())
    }
}

/// Stops with an error as soon as the budget is spent.
struct Bounded<'a, R> {
    inner: &'a mut R,
    budget: Budget,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(CHUNK_BYTES);
        let read = self.inner.read(&mut buffer[..length])?;
        if self.budget.count(read) { Ok(read) } else { Err(std::io::Error::other("beyond the limit")) }
    }
}
