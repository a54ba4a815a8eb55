//! Compiling: the sources copied to where the compiler may write, and what became of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::compile;
use crate::runtime::wire::Specialise;

/// Where the sources are copied to; `TMPDIR` is only set otherwise in tests.
pub(super) fn directory(specialise: &Specialise) -> PathBuf {
    Path::new(specialise.env.get("TMPDIR").map_or("/tmp", String::as_str)).join("build")
}

/// The program that a build must leave behind.
pub(super) fn product(specialise: &Specialise) -> PathBuf {
    Path::new(specialise.env.get("OUTPUT_DIR").map_or("/output", String::as_str)).join(compile::PROGRAM)
}

/// What compilers are told beside the function's own environment.
pub(super) fn add_environment(specialise: &mut Specialise) {
    for (name, value) in compile::ENVIRONMENT {
        specialise.env.insert(name.to_owned(), value.to_owned());
    }
}

/// Copies files and folders; packages hold nothing else.
pub(super) fn copy_sources(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_sources(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
