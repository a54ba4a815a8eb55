//! What the repository promises about itself: rooms that stay apart, files that say what they are for, a configuration file that
//! tells the truth.

mod attacks;
mod configuration;
mod promises;
mod rooms;

use std::path::{Path, PathBuf};

/// The package's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.rs` file below `folder`, with its text, in order of path.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a readable source file");
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// Source text without comments, so that prose may name what code may not. Good enough for what is looked for here: it takes
/// `//` inside a string for a comment.
fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}
