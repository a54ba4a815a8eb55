//! What packages are refused for, and what becomes of the good ones.

mod hostile;

use std::io::{Cursor, Write};
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn zip(files: &[(&str, &[u8])]) -> Bytes {
    zip_with_modes(&files.iter().map(|(name, contents)| (*name, 0o644, *contents)).collect::<Vec<_>>())
}

fn zip_with_modes(files: &[(&str, u32, &[u8])]) -> Bytes {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, contents) in files {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        writer.start_file(*name, options).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner().into()
}

fn python(package: Bytes) -> Result<Inspected, PackageError> {
    inspect(package, Runtime::Python, None, &Limits::default())
}

fn refusal(package: Bytes) -> String {
    match python(package) {
        Err(PackageError::Invalid(message)) => message,
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(package: Bytes, words: &str) {
    let message = refusal(package);
    assert!(message.contains(words), "{message}");
}

#[test]
fn a_python_package_is_accepted_as_it_is() {
    let package = zip(&[("main.py", b"def handler(e): pass"), ("lib/a.py", b"")]);
    let inspected = python(package.clone()).unwrap();
    assert_eq!(inspected.package, package);
    assert_eq!(inspected.entry_file, EntryFile::Ready("main.py".to_owned()));
    assert_eq!((inspected.unpacked_bytes, inspected.entries), (20, 2));
    assert!(!inspected.needs_build());
}

#[test]
fn a_small_source_is_stored_as_it_is_and_a_large_one_compressed() {
    for (bytes, is_stored) in [(30, true), (4096, true), (4097, false), (100_000, false)] {
        let source = "x = 1\n".repeat(bytes / 6 + 1)[..bytes].to_owned();
        let package = from_source(Runtime::Python, None, None, source.as_bytes()).unwrap();
        let is_in = package.windows(bytes).any(|window| window == source.as_bytes());
        assert_eq!((is_in, package.len() < bytes), (is_stored, !is_stored), "{bytes} bytes");
        let dir = tempfile::tempdir().unwrap();
        unpack(&package, &dir.path().join("code"), &Limits::default()).unwrap();
        assert_eq!(std::fs::read(dir.path().join("code/main.py")).unwrap(), source.as_bytes());
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    assert_refused(Bytes::new(), "0 bytes");
    assert_refused(Bytes::from_static(b"def handler(): pass"), "not a zip archive");
    assert_refused(zip(&[]), "no files");
    let whole = zip(&[("main.py", &[7; 5000])]);
    assert_refused(whole.slice(..whole.len() - 30), "cut short");
}

#[test]
fn damaged_contents_are_refused() {
    let mut bytes = zip(&[("main.py", b"def handler(event): return event")]).to_vec();
    bytes[40] ^= 0x55;
    assert_refused(bytes.into(), "can't be");
}

#[test]
fn names_that_lead_outside_are_refused() {
    assert_refused(zip(&[("main.py", b""), ("../evil.py", b"")]), "\"..\"");
    assert_refused(zip(&[("main.py", b""), ("a/../../evil.py", b"")]), "\"..\"");
    assert_refused(zip(&[("main.py", b""), ("/etc/passwd", b"")]), "absolute");
    assert_refused(zip(&[("main.py", b""), ("C:/x", b"")]), "absolute");
    assert_refused(zip(&[("main.py", b""), ("a\\..\\b", b"")]), "backslash");
    assert_refused(zip(&[("main.py", b""), ("a\0b", b"")]), "NUL");
    assert_refused(zip(&[("main.py", b""), ("a//b", b"")]), "empty part");
    assert_refused(zip(&[("main.py", b""), (&"x".repeat(300), b"")]), "too long");
}

#[test]
fn names_that_collide_are_refused() {
    assert_refused(zip(&[("main.py", b""), ("./main.py", b"")]), "twice");
    assert_refused(zip(&[("main.py", b""), ("main.py/x", b"")]), "both a file and a folder");
    assert_refused(zip(&[("main.py/x", b""), ("main.py", b"")]), "both a file and a folder");
    let mut twice = zip(&[("main.py", b"a"), ("mbin.py", b"b")]).to_vec();
    for at in 0..twice.len() - 7 {
        if &twice[at..at + 7] == b"mbin.py" {
            twice[at + 1] = b'a';
        }
    }
    assert_refused(twice.into(), "same name");
}

#[test]
fn links_and_devices_are_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("main.py", SimpleFileOptions::default()).unwrap();
    writer.add_symlink("out", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    assert_refused(writer.finish().unwrap().into_inner().into(), "symbolic link");

    let package = zip(&[("main.py", b""), ("tty", b"")]).to_vec();
    let device = (0o020_644_u32 << 16).to_le_bytes();
    let plain = (0o100_644_u32 << 16).to_le_bytes();
    let at = package.windows(4).rposition(|window| window == plain).unwrap();
    let mut with_device = package;
    with_device[at..at + 4].copy_from_slice(&device);
    assert_refused(with_device.into(), "neither a file nor a folder");
}

#[test]
fn a_bomb_is_refused_while_it_inflates() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("main.py", SimpleFileOptions::default()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        writer.write_all(&zeros).unwrap();
    }
    let package: Bytes = writer.finish().unwrap().into_inner().into();
    assert!(package.len() < 2 << 20);
    let Err(PackageError::TooLarge(message)) = python(package) else { panic!("accepted") };
    assert!(message.contains("bomb"), "{message}");
}

#[test]
fn more_than_may_be_unpacked_is_too_large() {
    let limits = Limits { unpacked_bytes: 1000, ..Limits::default() };
    let package = zip(&[("main.py", &[1; 600]), ("other.py", &[2; 600])]);
    assert!(matches!(inspect(package, Runtime::Python, None, &limits), Err(PackageError::TooLarge(_))));
}

#[test]
fn a_size_that_lies_is_found_out() {
    let mut bytes = zip(&[("main.py", &[b'x'; 100_000])]).to_vec();
    let honest = 100_000_u32.to_le_bytes();
    let found: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == honest).collect();
    for at in found {
        bytes[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    refusal(bytes.into());
}

#[test]
fn too_many_entries_or_bytes_are_too_large() {
    let names: Vec<String> = (0..20_000).map(|n| format!("f{n}")).collect();
    let package = zip(&names.iter().map(|name| (name.as_str(), &b""[..])).collect::<Vec<_>>());
    let Err(PackageError::TooLarge(message)) = python(package) else { panic!("accepted") };
    assert!(message.contains("20000 entries"), "{message}");

    let limits = Limits { zip_bytes: 50, ..Limits::default() };
    let refused = inspect(zip(&[("main.py", b"")]), Runtime::Python, None, &limits);
    assert!(matches!(refused, Err(PackageError::TooLarge(_))));
}

#[test]
fn a_missing_entry_file_is_named() {
    assert_refused(zip(&[("readme.md", b"")]), "main.py");
    for (runtime, handler, words) in [
        (Runtime::Python, Some("app.run"), "none of app.py"),
        (Runtime::Python, Some("../app.run"), "file.function"),
        (Runtime::Nodejs, Some("src/app.run"), "src/app.js"),
        (Runtime::Nodejs, None, "index.js"),
        (Runtime::Provided, None, "bootstrap"),
        (Runtime::Go, None, "main.go"),
        (Runtime::Cpp, None, "main.cpp"),
    ] {
        let error = inspect(zip(&[("x/y", b""), ("z", b"")]), runtime, handler, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{runtime} {error}");
    }
}

#[test]
fn handlers_name_their_files() {
    for (runtime, handler, file) in [
        (Runtime::Python, Some("app.run"), "app.py"),
        (Runtime::Python, Some("pkg/app.run"), "pkg/app.py"),
        (Runtime::Python, Some("pkg.app.run"), "pkg/app.py"),
        (Runtime::Python, Some("pkg.run"), "pkg/__init__.py"),
        (Runtime::Python, Some("run"), "main.py"),
        (Runtime::Python, None, "lambda_function.py"),
        (Runtime::Nodejs, Some("app.run"), "app.mjs"),
        (Runtime::Nodejs, Some("src/app.run"), "src/app.js"),
        (Runtime::Nodejs, None, "index.cjs"),
        (Runtime::Cpp, None, "main"),
    ] {
        let inspected = inspect(zip(&[(file, b"x")]), runtime, handler, &Limits::default());
        assert_eq!(inspected.unwrap().entry_file, EntryFile::Ready(file.to_owned()), "{runtime} {handler:?}");
    }
    let sources = inspect(zip(&[("main.go", b"x")]), Runtime::Go, None, &Limits::default()).unwrap();
    assert!(sources.needs_build());
}

#[test]
fn a_folder_around_everything_is_taken_off() {
    let package = zip(&[("hello/main.py", b"code"), ("hello/lib/a.py", b""), ("__MACOSX/hello/._main.py", b"")]);
    let inspected = python(package).unwrap();
    assert_eq!(inspected.entry_file, EntryFile::Ready("main.py".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    unpack(&inspected.package, dir.path(), &Limits::default()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("main.py")).unwrap(), b"code");
    assert!(dir.path().join("lib/a.py").exists());
    assert!(!dir.path().join("__MACOSX").exists());
    assert_refused(zip(&[("a/main.py", b"x"), ("b/x", b"")]), "main.py");
    assert_refused(zip(&[("a/main.py", b"")]), "main.py in the package is empty");
    assert_refused(zip(&[("main.py", b"")]), "main.py in the package is empty");
}

#[test]
fn unpacked_files_have_plain_modes() {
    let package = zip_with_modes(&[("bootstrap", 0o600, b"#!"), ("tool", 0o711, b""), ("d/data", 0o666, b"1")]);
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("code");
    unpack(&package, &into, &Limits::default()).unwrap();
    let mode = |name: &str| std::fs::metadata(into.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(""), mode("d"), mode("d/data"), mode("tool"), mode("bootstrap")),
        (0o755, 0o755, 0o644, 0o755, 0o755)
    );
}

#[test]
fn unpacking_never_writes_through_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, b"safe").unwrap();
    let into = dir.path().join("code");
    std::fs::create_dir(&into).unwrap();
    std::os::unix::fs::symlink(&outside, into.join("main.py")).unwrap();
    let result = unpack(&zip(&[("main.py", b"evil")]), &into, &Limits::default());
    assert!(matches!(result, Err(PackageError::Disk(_))));
    assert_eq!(std::fs::read(&outside).unwrap(), b"safe");
}

#[test]
fn a_single_source_makes_a_package() {
    for (runtime, handler, file_name, source, entry) in [
        (Runtime::Python, None, Some("hello.py"), "def handler(): pass", "main.py"),
        (Runtime::Python, Some("app.run"), None, "def run(): pass", "app.py"),
        (Runtime::Nodejs, None, Some("x.js"), "exports.handler = 1", "index.js"),
        (Runtime::Nodejs, None, Some("x.js"), "export const handler = 1", "index.mjs"),
        (Runtime::Nodejs, Some("app.run"), Some("x.cjs"), "exports.run = 1", "app.cjs"),
        (Runtime::Provided, None, None, "#!/bin/sh", "bootstrap"),
        (Runtime::Go, None, None, "\x7fELF", "main"),
    ] {
        let package = from_source(runtime, handler, file_name, source.as_bytes()).unwrap();
        assert_eq!(package, from_source(runtime, handler, file_name, source.as_bytes()).unwrap());
        let inspected = inspect(package, runtime, handler, &Limits::default()).unwrap();
        assert_eq!(inspected.entry_file, EntryFile::Ready(entry.to_owned()));
    }
    assert!(from_source(Runtime::Python, None, None, b"").is_err());
}

#[test]
fn a_built_program_joins_its_sources() {
    let sources = zip(&[("main.go", b"package main"), ("main", b"old")]);
    let package = add_file(&sources, "main", b"new", true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(&package, dir.path(), &Limits::default()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("main")).unwrap(), b"new");
    assert_eq!(std::fs::read(dir.path().join("main.go")).unwrap(), b"package main");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(python(bytes.into()).is_err());
    }

    #[test]
    fn a_zip_with_any_bytes_changed_never_panics(
        changes in proptest::collection::vec((0_usize..10_000, any::<u8>()), 1..6),
    ) {
        let mut bytes = zip(&[("main.py", b"def handler(event): return event"), ("lib/a.txt", &[9; 300])]).to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let dir = tempfile::tempdir().unwrap();
        let package = Bytes::from(bytes);
        let _ = unpack(&package, &dir.path().join("code"), &Limits::default());
        let _ = python(package);
    }
}
