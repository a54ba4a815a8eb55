//! Archives made by hand to be read in two ways, to hide something, or to grow.

use super::*;

/// Where entry `n` of an archive has its central header.
fn central(bytes: &[u8], n: usize) -> usize {
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x01\x02").nth(n).unwrap().0
}

fn local(bytes: &[u8], n: usize) -> usize {
    bytes.windows(4).enumerate().filter(|(_, window)| *window == b"PK\x03\x04").nth(n).unwrap().0
}

fn set(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// `main.py` and `other`, changed by hand.
fn changed(change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let mut bytes = zip(&[("main.py", b"def handler(event): return event"), ("other", b"other's contents")]).to_vec();
    change(&mut bytes);
    bytes.into()
}

#[test]
fn names_that_no_system_should_meet_are_refused() {
    assert_refused(zip(&[("main.py", b""), ("a\nb", b"")]), "control character");
    assert_refused(zip(&[("main.py", b""), ("a\x1b[2Jb", b"")]), "control character");
    assert_refused(zip(&[("main.py", b""), ("a\u{85}b", b"")]), "control character");
    assert_refused(zip(&[("main.py", b""), (&"d/".repeat(65), b"")]), "too deep");
    assert_refused(zip(&[("main.py", b""), (&"longer/".repeat(200), b"")]), "too long a path");
    assert_refused(zip(&[("main.py", b""), ("..", b"")]), "\"..\"");
    assert_refused(zip(&[("main.py", b""), ("a/..", b"")]), "\"..\"");
    let absolute = changed(|bytes| {
        let (local, central) = (local(bytes, 1), central(bytes, 1));
        set(bytes, local + 30, b"/evil");
        set(bytes, central + 46, b"/evil");
    });
    assert_refused(absolute, "absolute");
    let latin1 = changed(|bytes| {
        let (local, central) = (local(bytes, 1), central(bytes, 1));
        set(bytes, local + 30, b"\xe4ther");
        set(bytes, central + 46, b"\xe4ther");
    });
    assert_refused(latin1, "UTF-8");
}

#[test]
fn names_that_differ_by_case_or_end_in_a_dot_are_different_files() {
    let package = zip(&[("main.py", b"1"), ("Main.py", b"22"), ("MAIN.PY", b"333"), ("dots.", b"4"), ("...", b"5")]);
    let dir = tempfile::tempdir().unwrap();
    unpack(&python(package).unwrap().package, dir.path(), &Limits::default()).unwrap();
    for (name, contents) in [("main.py", "1"), ("Main.py", "22"), ("MAIN.PY", "333"), ("dots.", "4"), ("...", "5")] {
        assert_eq!(std::fs::read_to_string(dir.path().join(name)).unwrap(), contents);
    }
}

#[test]
fn only_files_and_folders_are_packed() {
    for kind in [0o010_644_u32, 0o020_644, 0o060_644, 0o120_777, 0o140_755] {
        let package = changed(|bytes| {
            let central = central(bytes, 1);
            set(bytes, central + 38, &(kind << 16).to_le_bytes());
        });
        let message = refusal(package);
        assert!(message.contains("neither a file nor a folder") || message.contains("symbolic link"), "{message}");
        assert!(message.contains("other"), "{message}");
    }
}

#[test]
fn special_mode_bits_are_dropped_and_unreadable_files_made_readable() {
    let package = zip_with_modes(&[
        ("main.py", 0o000, b"1"),
        ("suid", 0o4755, b""),
        ("sgid", 0o2711, b""),
        ("sticky", 0o1666, b""),
    ]);
    let dir = tempfile::tempdir().unwrap();
    unpack(&package, dir.path(), &Limits::default()).unwrap();
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("main.py"), mode("suid"), mode("sgid"), mode("sticky")), (0o644, 0o755, 0o755, 0o644));
}

#[test]
fn two_headers_that_differ_are_refused() {
    assert_refused(
        changed(|bytes| {
            let at = local(bytes, 1);
            set(bytes, at + 30, b"evil!")
        }),
        "another name",
    );
    assert_refused(
        changed(|bytes| {
            let at = central(bytes, 1);
            set(bytes, at + 46, b"evil!")
        }),
        "another name",
    );
    assert_refused(
        changed(|bytes| {
            let at = local(bytes, 1);
            set(bytes, at + 22, &9_u32.to_le_bytes())
        }),
        "another size",
    );
    assert_refused(
        changed(|bytes| {
            let at = local(bytes, 1);
            set(bytes, at + 18, &9_u32.to_le_bytes())
        }),
        "another size",
    );
    assert_refused(
        changed(|bytes| {
            let at = local(bytes, 1);
            set(bytes, at, b"PK\x07\x08")
        }),
        "",
    );
    let method = changed(|bytes| {
        let at = local(bytes, 1);
        let now = bytes[at + 8];
        set(bytes, at + 8, &[8 - now, 0])
    });
    assert_refused(method, "another compression");
    // An open size, as streams have it, is no difference; a wrong one is.
    let open = |size: u32| {
        changed(|bytes| {
            let at = local(bytes, 1);
            let flags = bytes[at + 6] | 8;
            set(bytes, at + 6, &[flags]);
            set(bytes, at + 18, &[size.to_le_bytes(), size.to_le_bytes()].concat());
        })
    };
    assert!(python(open(0)).is_ok());
    assert_refused(open(5), "another size");
}

#[test]
fn encrypted_and_oddly_compressed_entries_are_refused() {
    for flag in [1_u16, 1 << 6, 1 << 13] {
        let package = changed(|bytes| {
            let (local, central) = (local(bytes, 1), central(bytes, 1));
            set(bytes, local + 6, &flag.to_le_bytes());
            set(bytes, central + 8, &flag.to_le_bytes());
        });
        assert_refused(package, "");
    }
    let locked = changed(|bytes| {
        let at = local(bytes, 1);
        set(bytes, at + 6, &[1, 0])
    });
    assert_refused(locked, "\"other\" in the package is encrypted");
    for method in [1_u16, 12, 14, 93, 99] {
        let package = changed(|bytes| {
            let (local, central) = (local(bytes, 1), central(bytes, 1));
            set(bytes, local + 8, &method.to_le_bytes());
            set(bytes, central + 10, &method.to_le_bytes());
        });
        assert_refused(package, "");
    }
}

#[test]
fn declared_sizes_must_be_the_real_ones() {
    for size in [0_u32, 10, 17, 100_000] {
        let package = changed(|bytes| {
            let (local, central) = (local(bytes, 1), central(bytes, 1));
            set(bytes, local + 22, &size.to_le_bytes());
            set(bytes, central + 24, &size.to_le_bytes());
        });
        assert_refused(package, "other");
    }
}

/// After D. Fifield, "A better zip bomb": many entries, one and the same contents.
#[test]
fn entries_that_share_their_contents_are_refused() {
    let package = changed(|bytes| {
        // The second entry of the directory is made to point at the first's contents, under the first's length and sum.
        let (first, second) = (central(bytes, 0), central(bytes, 1));
        let (of_first, at) = (bytes[first + 16..first + 28].to_vec(), bytes[first + 42..first + 46].to_vec());
        set(bytes, second + 16, &of_first);
        set(bytes, second + 42, &at);
    });
    assert_refused(package, "overlap");
}

#[test]
fn what_is_not_of_the_archive_is_refused() {
    let package = zip(&[("main.py", b"x = 1")]);
    let with = |before: &[u8], after: &[u8]| Bytes::from([before, &package, after].concat());
    assert_refused(with(b"#!/usr/bin/env python3\n", b""), "before its first entry");
    assert_refused(with(b"", b"\n"), "after its end");
    assert_refused(with(&package, b""), "before its first entry");
    assert_refused(with(b"", &[0; 70_000]), "after its end");
    let comment = |text: &[u8]| {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("main.py", SimpleFileOptions::default()).unwrap();
        writer.write_all(b"x = 1").unwrap();
        writer.set_raw_comment(text.into()).unwrap();
        Bytes::from(writer.finish().unwrap().into_inner())
    };
    assert!(python(comment(b"made by hand")).is_ok());
    let nested = zip(&[("evil.py", b"")]);
    assert_refused(comment(&nested), "");
}

#[test]
fn counts_and_places_in_the_end_record_must_be_right() {
    let end = |bytes: &[u8]| bytes.len() - 22;
    for (at, value, words) in [
        (10, 3_u16, ""),
        (10, 1, ""),
        (4, 1, "split"),
        (8, 1, "split"),
        (16, 1, "where it says"),
        (12, 7, "where it says"),
        (10, u16::MAX, "ZIP64"),
    ] {
        let package = changed(|bytes| {
            let end = end(bytes);
            set(bytes, end + at, &value.to_le_bytes())
        });
        assert_refused(package, words);
    }
    let counts = changed(|bytes| {
        let end = end(bytes);
        set(bytes, end + 8, &[1, 0, 1, 0])
    });
    assert_refused(counts, "");
}

#[test]
fn a_folder_with_contents_is_refused() {
    let package = changed(|bytes| {
        let (local, central) = (local(bytes, 1), central(bytes, 1));
        set(bytes, local + 30, b"othe/");
        set(bytes, central + 46, b"othe/");
    });
    assert_refused(package, "");
}

#[test]
fn archives_within_an_archive_stay_packed() {
    let inner = zip(&[("../../evil.py", b"1")]);
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in [("main.py", &b"x = 1"[..]), ("inner.zip", &inner)] {
        writer.start_file(name, stored).unwrap();
        writer.write_all(contents).unwrap();
    }
    let package = Bytes::from(writer.finish().unwrap().into_inner());
    let dir = tempfile::tempdir().unwrap();
    unpack(&python(package).unwrap().package, dir.path(), &Limits::default()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("inner.zip")).unwrap(), inner);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn every_cut_of_an_archive_is_refused() {
    let package = zip(&[("main.py", b"x = 1"), ("lib/a.txt", &[9; 300])]);
    for end in 0..package.len() {
        assert!(python(package.slice(..end)).is_err(), "cut at {end}");
    }
}

#[test]
fn names_beyond_ascii_survive_a_rewritten_package() {
    let package = zip(&[("f/main.cpp", b"int main() {}"), ("f/\u{e4}\u{1f600}.txt", b"1")]);
    let inspected = inspect(package, Runtime::Cpp, None, &Limits::default()).unwrap();
    let built = add_file(&inspected.package, "main", b"\x7fELF", true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    unpack(&built, dir.path(), &Limits::default()).unwrap();
    assert!(dir.path().join("\u{e4}\u{1f600}.txt").is_file());
}

#[test]
fn what_is_no_source_is_refused_by_what_it_is() {
    for (runtime, source, words) in [
        (Runtime::Python, &b"\x1f\x8b\x08\x00"[..], "a gzip archive"),
        (Runtime::Python, b"\x7fELF\x02\x01", "a Linux program"),
        (Runtime::Nodejs, b"\x89PNG\r\n", "a picture"),
        (Runtime::Nodejs, b"exports.x = '\0'", "no UTF-8 text"),
        (Runtime::Go, b"MZ\x90\x00", "a Windows program"),
        (Runtime::Provided, b"\xff\xfe#!", "no UTF-8 text"),
    ] {
        let refused = from_source(runtime, None, None, source).unwrap_err().to_string();
        assert!(refused.contains(words) && refused.contains(runtime.as_str()), "{refused}");
    }
}
