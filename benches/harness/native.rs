//! Native programs of the benches, compiled here.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Compiles `source` to `program`.
pub fn compile(source: &str, program: &Path) -> io::Result<()> {
    let file = program.with_extension("cpp");
    fs::write(&file, source)?;
    let built = Command::new("g++").args(["-O2", "-static", "-o"]).args([program, &file]).status()?;
    if built.success() { Ok(()) } else { Err(io::Error::other("g++ could not build it")) }
}

/// An archive, in base64, of the program from `source` as its `bootstrap`.
pub fn bootstrap(source: &str) -> io::Result<String> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("bootstrap");
    compile(source, &program)?;
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let executable = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    archive.start_file("bootstrap", executable)?;
    archive.write_all(&fs::read(&program)?)?;
    Ok(BASE64_STANDARD.encode(archive.finish()?.into_inner()))
}
