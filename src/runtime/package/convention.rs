//! Which file of a package a runtime calls, and what a single source file is to be named. The shims look for the same names
//! (`python/shim.py`, `nodejs/shim.cjs`).

use crate::domain::function::Runtime;

use super::PackageError;
use super::reader::invalid;

const PYTHON_FILES: [&str; 4] = ["main", "index", "lambda_function", "handler"];
const NODE_FILES: [&str; 2] = ["index", "main"];
const NODE_EXTENSIONS: [&str; 3] = [".js", ".mjs", ".cjs"];
pub(super) const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The file that a call begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryFile {
    /// Runs as it is.
    Ready(String),
    /// Must be compiled to `main` first.
    Source(String),
}

impl EntryFile {
    pub fn name(&self) -> &str {
        match self {
            EntryFile::Ready(name) | EntryFile::Source(name) => name,
        }
    }
}

/// The entry file of a package with these files, or a sentence that lists what was looked for.
pub(super) fn find_entry_file(
    runtime: Runtime,
    handler: Option<&str>,
    files: &[&str],
) -> Result<EntryFile, PackageError> {
    let has = |name: &str| files.contains(&name);
    let wanted = match runtime {
        Runtime::Python => python_candidates(handler, files)?,
        Runtime::Nodejs => node_candidates(handler)?,
        Runtime::Provided => vec!["bootstrap".to_owned()],
        Runtime::Go | Runtime::Cpp => {
            let source = if runtime == Runtime::Go { "main.go" } else { "main.cpp" };
            if !has("main") && has(source) {
                return Ok(EntryFile::Source(source.to_owned()));
            }
            vec!["main".to_owned(), source.to_owned()]
        }
    };
    match wanted.iter().find(|name| has(name)) {
        Some(found) => Ok(EntryFile::Ready(found.clone())),
        None => Err(missing(runtime, handler, &wanted)),
    }
}

fn missing(runtime: Runtime, handler: Option<&str>, wanted: &[String]) -> PackageError {
    let names = wanted.join(", ");
    let called_for = match (runtime, handler) {
        (Runtime::Python | Runtime::Nodejs, Some(handler)) => format!("handler \"{handler}\" calls for"),
        _ => format!("runtime {runtime} calls for"),
    };
    invalid(match wanted.len() {
        1 => format!("the package has no file {names} at its top, which {called_for}"),
        _ => format!("the package has none of {names} at its top, one of which {called_for}"),
    })
}

fn python_candidates(handler: Option<&str>, files: &[&str]) -> Result<Vec<String>, PackageError> {
    let as_files = |module: &str| [format!("{module}.py"), format!("{module}/__init__.py")];
    let Some(handler) = handler else {
        return Ok(PYTHON_FILES.iter().flat_map(|module| as_files(module)).collect());
    };
    let path = handler_path(handler)?.replace('.', "/");
    let as_module = as_files(&path);
    match path.rsplit_once('/') {
        // One word names a file, or else a function in the usual file.
        None if !as_module.iter().any(|file| files.contains(&file.as_str())) => python_candidates(None, files),
        None => Ok(as_module.to_vec()),
        Some((module, _)) => Ok(as_files(module).to_vec()),
    }
}

fn node_candidates(handler: Option<&str>) -> Result<Vec<String>, PackageError> {
    let as_files = |stem: &str| NODE_EXTENSIONS.map(|extension| format!("{stem}{extension}"));
    let usual = || NODE_FILES.iter().flat_map(|stem| as_files(stem)).collect::<Vec<_>>();
    let Some(handler) = handler else { return Ok(usual()) };
    let path = handler_path(handler)?;
    let (folder, last) = path.rsplit_once('/').map_or(("", path), |(folder, last)| (folder, last));
    let stem = last.split_once('.').map_or(last, |(stem, _)| stem);
    let file = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
    let mut wanted = as_files(&file).to_vec();
    if !path.contains(['.', '/']) {
        wanted.extend(usual()); // one word names a file, or else a function in the usual file
    }
    Ok(wanted)
}

/// A handler's text without a leading `./`, if it can name a file of the package.
fn handler_path(handler: &str) -> Result<&str, PackageError> {
    let path = handler.strip_prefix("./").unwrap_or(handler);
    let sound = !path.is_empty()
        && path.len() <= 256
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && path.split(['/', '.']).all(|part| !part.is_empty());
    if sound { Ok(path) } else { Err(invalid(format!("handler {handler:?} is not of the form file.function"))) }
}

/// The folder (with its slash) that all files lie in, if there is exactly one. What macOS adds beside it doesn't count.
pub(super) fn single_top_folder(files: &[&str]) -> Option<String> {
    let mut folder = None;
    for name in files.iter().filter(|name| !is_litter(name)) {
        let (top, _) = name.split_once('/')?;
        if *folder.get_or_insert(top) != top {
            return None;
        }
    }
    Some(format!("{}/", folder?))
}

fn is_litter(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name == ".DS_Store"
}

/// The name under which a lone source file makes a package, and whether it is executable.
pub(super) fn source_file_name(
    runtime: Runtime,
    handler: Option<&str>,
    file_name: Option<&str>,
    source: &[u8],
) -> (String, bool) {
    let stem = handler.and_then(|handler| handler_path(handler).ok()).filter(|path| path.contains('.'));
    match runtime {
        Runtime::Python => {
            let module = stem.and_then(|path| path.rsplit_once('.')).map_or("main", |(module, _)| module);
            (format!("{}.py", module.replace('.', "/")), false)
        }
        Runtime::Nodejs => {
            let stem = stem.and_then(|path| path.rsplit_once('.')).map_or("index", |(stem, _)| stem);
            (format!("{stem}{}", node_extension(file_name, source)), false)
        }
        Runtime::Provided => ("bootstrap".to_owned(), true),
        Runtime::Go | Runtime::Cpp if source.starts_with(ELF_MAGIC) => ("main".to_owned(), true),
        Runtime::Go => ("main.go".to_owned(), false),
        Runtime::Cpp => ("main.cpp".to_owned(), false),
    }
}

/// By the file's own name where that decides it; `.js` and unnamed sources by what they say.
fn node_extension(file_name: Option<&str>, source: &[u8]) -> &'static str {
    match file_name {
        Some(name) if name.ends_with(".mjs") => ".mjs",
        Some(name) if name.ends_with(".cjs") => ".cjs",
        _ if is_es_module(source) => ".mjs",
        _ => ".js",
    }
}

/// Whether a line begins as only an ES module's can.
fn is_es_module(source: &[u8]) -> bool {
    String::from_utf8_lossy(source).lines().any(|line| {
        let opens =
            |word: &str| line.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{', '*', '"', '\'']));
        opens("export") || opens("import")
    })
}
