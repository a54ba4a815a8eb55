//! Archives, good and bad, made in memory.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An archive of plain files.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files = files.iter().map(|(name, bytes)| (*name, 0o644, *bytes));
    zip_with_modes(files)
}

/// An archive of files with their permission bits.
pub fn zip_with_modes<'a>(files: impl IntoIterator<Item = (&'a str, u32, &'a [u8])>) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, bytes) in files {
        writer.start_file(name, SimpleFileOptions::default().unix_permissions(mode)).expect("an entry");
        writer.write_all(bytes).expect("bytes");
    }
    finish(writer)
}

/// `main.py` and a link called `name` that points to `target`.
pub fn zip_with_link(name: &str, target: &str, main: &[u8]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("main.py", SimpleFileOptions::default()).expect("an entry");
    writer.write_all(main).expect("bytes");
    writer.add_symlink(name, target, SimpleFileOptions::default()).expect("a link");
    finish(writer)
}

/// `main.py` and a character device: type and permissions stand in the upper half of the central directory's attributes.
pub fn zip_with_device(main: &[u8]) -> Vec<u8> {
    const CHARACTER_DEVICE: u32 = 0o020_666;
    const CENTRAL_ENTRY: &[u8] = b"PK\x01\x02";
    const ATTRIBUTES_AT: usize = 38;
    let mut bytes = zip(&[("main.py", main), ("null", b"")]);
    let entry = bytes.windows(4).rposition(|window| window == CENTRAL_ENTRY).expect("a central entry");
    let attributes = entry + ATTRIBUTES_AT;
    bytes[attributes..attributes + 4].copy_from_slice(&(CHARACTER_DEVICE << 16).to_le_bytes());
    bytes
}

/// `main.py` and `other.py`, the bytes of all changed by hand.
pub fn zip_changed(main: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = zip(&[("main.py", main), ("other.py", b"other = 1")]);
    change(&mut bytes);
    bytes
}

/// Where the last header of this kind (`PK..`) begins.
pub fn last_header(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).rposition(|window| window == kind).expect("such a header")
}

/// `main.py` and a file of `zeros` bytes that packs to a thousandth.
pub fn bomb(zeros: u64, main: &[u8]) -> Vec<u8> {
    let deflated =
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1));
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("main.py", deflated).expect("an entry");
    writer.write_all(main).expect("bytes");
    writer.start_file("zeros", deflated).expect("an entry");
    std::io::copy(&mut std::io::repeat(0).take(zeros), &mut writer).expect("zeros");
    finish(writer)
}

/// An archive of `count` empty files beside `main.py`.
pub fn many_entries(count: usize, main: &[u8]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("main.py", stored).expect("an entry");
    writer.write_all(main).expect("bytes");
    for i in 0..count {
        writer.start_file(format!("empty/{i}"), stored).expect("an entry");
    }
    finish(writer)
}

fn finish(writer: ZipWriter<Cursor<Vec<u8>>>) -> Vec<u8> {
    writer.finish().expect("an archive").into_inner()
}
