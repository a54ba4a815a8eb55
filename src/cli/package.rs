//! From a folder, a file or an archive to what is uploaded, and what can be told from it: name, runtime, settings.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::Failure;
use crate::domain::function::Runtime;
use crate::domain::limits::Limits;

/// A folder's own description of its function.
pub const MANIFEST: &str = "function.toml";
/// Never part of a package.
const SKIPPED: [&str; 2] = [".git", "__pycache__"];
/// Which file at the top of a package tells its runtime.
const TELLING: [(&str, Runtime); 8] = [
    ("main.py", Runtime::Python),
    ("index.py", Runtime::Python),
    ("index.js", Runtime::Nodejs),
    ("index.mjs", Runtime::Nodejs),
    ("index.cjs", Runtime::Nodejs),
    ("bootstrap", Runtime::Provided),
    ("main.go", Runtime::Go),
    ("main.cpp", Runtime::Cpp),
];
/// What the ending of a lone source file tells.
const ENDINGS: [(&str, Runtime); 6] = [
    ("py", Runtime::Python),
    ("js", Runtime::Nodejs),
    ("mjs", Runtime::Nodejs),
    ("cjs", Runtime::Nodejs),
    ("go", Runtime::Go),
    ("cpp", Runtime::Cpp),
];

/// `function.toml`: what a deploy uses where no flag says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    pub name: Option<String>,
    pub runtime: Option<String>,
    pub handler: Option<String>,
    pub memory_mb: Option<u32>,
    pub auto_memory: Option<bool>,
    pub timeout_ms: Option<u64>,
    pub description: Option<String>,
    pub env: BTreeMap<String, String>,
}

/// What is uploaded.
#[derive(Clone, Debug)]
pub struct Package {
    /// Told to the daemon, which takes a file that is no archive for the source itself.
    pub file_name: String,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
    /// What its files tell; none, or several, where they don't agree.
    pub runtimes: Vec<Runtime>,
    /// A name to take where nobody gives one.
    pub stem: String,
}

/// Reads what `path` names. The sizes are kept to unless `force` says that this daemon allows more.
///
/// # Errors
/// [`Failure::Usage`]: unreadable, empty or too large.
pub fn read(path: &Path, limits: &Limits, force: bool) -> Result<Package, Failure> {
    let unreadable = |error: std::io::Error| Failure::Usage(format!("{} can't be read: {error}", path.display()));
    let full = path.canonicalize().map_err(unreadable)?;
    let package = if full.is_dir() { folder(&full, limits, force)? } else { file(&full)? };
    let size = package.bytes.len() as u64;
    if size > limits.zip_bytes && !force {
        return Err(too_large(format!("the package is {size} bytes, the limit is {}", limits.zip_bytes)));
    }
    Ok(package)
}

fn too_large(what: String) -> Failure {
    Failure::Usage(format!("{what} by default; --force sends it to a daemon that allows more"))
}

/// The last part of a path that says something: `main.py` does not, its folder does.
fn stem(path: &Path) -> String {
    let name = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match name(path).as_str() {
        "main" | "index" | "bootstrap" | "handler" | "function" => path.parent().map(name).unwrap_or_default(),
        other => other.to_owned(),
    }
}

fn file(path: &Path) -> Result<Package, Failure> {
    let bytes =
        std::fs::read(path).map_err(|error| Failure::Usage(format!("{} can't be read: {error}", path.display())))?;
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if bytes.is_empty() {
        return Err(Failure::Usage(format!("{} is empty", path.display())));
    }
    let runtimes = if bytes.starts_with(b"PK") {
        let archive = zip::ZipArchive::new(Cursor::new(&bytes))
            .map_err(|error| Failure::Usage(format!("{} is no readable zip archive: {error}", path.display())))?;
        let names: Vec<_> = archive.file_names().flatten().collect();
        told_by(names.iter().map(AsRef::as_ref))
    } else {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let by_ending = ENDINGS.iter().filter(|(known, _)| *known == ending).map(|(_, runtime)| *runtime);
        if file_name == "bootstrap" { vec![Runtime::Provided] } else { by_ending.collect() }
    };
    Ok(Package { file_name, bytes, manifest: Manifest::default(), runtimes, stem: stem(path) })
}

fn folder(root: &Path, limits: &Limits, force: bool) -> Result<Package, Failure> {
    let manifest = manifest(&root.join(MANIFEST))?;
    let files = walk(root, if force { u64::MAX } else { limits.zip_entries })?;
    if files.is_empty() {
        return Err(Failure::Usage(format!("{} holds no files to deploy", root.display())));
    }
    let bytes_max = if force { u64::MAX } else { limits.unpacked_bytes };
    let bytes = archive(root, &files, bytes_max)?;
    let names: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Package {
        file_name: format!("{name}.zip"),
        bytes,
        manifest,
        runtimes: told_by(names.iter().map(String::as_str)),
        stem: name,
    })
}

fn manifest(path: &Path) -> Result<Manifest, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Manifest::default()),
        Err(error) => return Err(Failure::Usage(format!("{} can't be read: {error}", path.display()))),
    };
    toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// The runtimes that files at the top of a package tell, each once.
fn told_by<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Runtime> {
    let mut told: Vec<Runtime> = names
        .filter_map(|name| TELLING.iter().find(|(known, _)| *known == name).map(|(_, runtime)| *runtime))
        .collect();
    told.sort_unstable();
    told.dedup();
    told
}

/// Paths of all files below `root`, relative to it, in order.
fn walk(root: &Path, entries_max: u64) -> Result<Vec<PathBuf>, Failure> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let unreadable = |error: std::io::Error| Failure::Usage(format!("{} can't be read: {error}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let name = entry.file_name();
            let kind = entry.file_type().map_err(unreadable)?;
            if SKIPPED.iter().any(|skipped| name == *skipped) || path == root.join(MANIFEST) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() || link_stays_inside(root, &path)? {
                files.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
            if (files.len() + folders.len()) as u64 > entries_max {
                return Err(too_large(format!(
                    "{} holds more than {entries_max} files, which is the limit",
                    root.display()
                )));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Links to files of the same folder are packed as those files; links out of it would not be what the daemon's host has there.
fn link_stays_inside(root: &Path, path: &Path) -> Result<bool, Failure> {
    match path.canonicalize() {
        Ok(target) if target.starts_with(root) && target.is_file() => Ok(true),
        _ => Err(Failure::Usage(format!(
            "{} is neither a file nor a link to one inside the folder: take it out, or put a file there",
            path.display()
        ))),
    }
}

/// A zip of the files: always the same bytes for the same contents, so that the daemon can tell that nothing changed.
fn archive(root: &Path, files: &[PathBuf], bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let mut left = bytes_max;
    for file in files {
        let path = root.join(file);
        let unreadable =
            |error: &dyn std::fmt::Display| Failure::Usage(format!("{} can't be packed: {error}", path.display()));
        let source = std::fs::File::open(&path).map_err(|error| unreadable(&error))?;
        let executable = source.metadata().map_err(|error| unreadable(&error))?.permissions().mode() & 0o111 != 0;
        let options = SimpleFileOptions::default()
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(if executable { 0o755 } else { 0o644 });
        let mut contents = Vec::new();
        source.take(left.saturating_add(1)).read_to_end(&mut contents).map_err(|error| unreadable(&error))?;
        left = left.checked_sub(contents.len() as u64).ok_or_else(|| {
            too_large(format!("{} is larger than {bytes_max} bytes unpacked, which is the limit", root.display()))
        })?;
        writer.start_file(file.to_string_lossy(), options).map_err(|error| unreadable(&error))?;
        writer.write_all(&contents).map_err(|error| unreadable(&error))?;
    }
    let done = writer.finish().map_err(|error| Failure::Usage(format!("the package can't be made: {error}")))?;
    Ok(done.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(package: &Package) -> Vec<String> {
        let archive = zip::ZipArchive::new(Cursor::new(&package.bytes)).unwrap();
        let mut names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_becomes_an_archive_without_what_is_not_code() {
        let folder = folder_of(&[
            ("main.py", "def handler(event): return 1"),
            ("lib/util.py", "x = 1"),
            ("lib/__pycache__/util.pyc", "junk"),
            (".git/config", "junk"),
            (MANIFEST, "name = \"hi\"\nmemory_mb = 256\n[env]\nA = \"1\"\n"),
        ]);
        let package = read(folder.path(), &Limits::default(), false).unwrap();
        assert_eq!(names(&package), ["lib/util.py", "main.py"]);
        assert_eq!(package.runtimes, [Runtime::Python]);
        assert_eq!(package.manifest.name.as_deref(), Some("hi"));
        assert_eq!(package.manifest.env["A"], "1");
        let again = read(folder.path(), &Limits::default(), false).unwrap();
        assert_eq!(package.bytes, again.bytes, "the same contents make the same bytes");
    }

    #[test]
    fn the_executable_bit_survives() {
        let folder = folder_of(&[("bootstrap", "#!/bin/sh\n")]);
        std::fs::set_permissions(folder.path().join("bootstrap"), PermissionsExt::from_mode(0o700)).unwrap();
        let package = read(folder.path(), &Limits::default(), false).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(&package.bytes)).unwrap();
        assert_eq!(archive.by_name("bootstrap").unwrap().unix_mode().unwrap() & 0o777, 0o755);
        assert_eq!(package.runtimes, [Runtime::Provided]);
    }

    #[test]
    fn a_source_file_is_sent_as_it_is() {
        let folder = folder_of(&[("hello.py", "x"), ("sub/index.mjs", "y")]);
        let package = read(&folder.path().join("hello.py"), &Limits::default(), false).unwrap();
        assert_eq!((package.stem.as_str(), package.bytes.as_slice()), ("hello", &b"x"[..]));
        assert_eq!(package.runtimes, [Runtime::Python]);
        let package = read(&folder.path().join("sub/index.mjs"), &Limits::default(), false).unwrap();
        assert_eq!((package.stem.as_str(), package.runtimes[0]), ("sub", Runtime::Nodejs));
    }

    #[test]
    fn bounds_are_kept_unless_forced() {
        let folder = folder_of(&[("main.py", "123456"), ("b.py", "1"), ("c.py", "1")]);
        let small = Limits { unpacked_bytes: 7, ..Limits::default() };
        assert!(read(folder.path(), &small, false).unwrap_err().to_string().contains("--force"));
        assert!(read(folder.path(), &small, true).is_ok());
        let few = Limits { zip_entries: 2, ..Limits::default() };
        assert!(read(folder.path(), &few, false).is_err());
    }

    #[test]
    fn links_out_empty_folders_and_nonsense_are_refused() {
        let folder = folder_of(&[("main.py", "x")]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(read(folder.path(), &Limits::default(), false).unwrap_err().to_string().contains("link"));
        assert!(read(folder_of(&[]).path(), &Limits::default(), false).is_err());
        assert!(read(Path::new("/nonexistent"), &Limits::default(), false).is_err());
        let bad = folder_of(&[("main.py", "x"), (MANIFEST, "nmae = 1\n")]);
        assert!(read(bad.path(), &Limits::default(), false).unwrap_err().to_string().contains("nmae"));
    }
}
