//! The host's interpreters and compilers: where they really are, behind shims and links, and what to install where they are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::Runtimes;
use crate::domain::function::Runtime;

/// A program that sandboxes run, and the host directories it needs beside the system's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    pub program: PathBuf,
    pub shown: Vec<PathBuf>,
}

/// What was found, or the sentence that says what to do about it.
pub type Found = Result<Interpreter, String>;

#[derive(Clone, Debug)]
pub struct Interpreters {
    pub python: Found,
    pub node: Found,
    pub go: Found,
    pub cxx: Found,
}

impl Interpreters {
    /// Looks at the configured paths, else along `PATH`. Runs each program found, for a moment.
    pub fn find(config: &Runtimes, path: &str) -> Self {
        let named = |configured: &str, name: &str, package: &str, key: &str| -> Result<PathBuf, String> {
            if configured.is_empty() {
                search(name, path).ok_or_else(|| {
                    format!("{name} is not installed; install it (`apt-get install {package}`) or set `runtimes.{key}` to its path")
                })
            } else if Path::new(configured).is_file() {
                Ok(configured.into())
            } else {
                Err(format!("`runtimes.{key}` names {configured}, which is no file"))
            }
        };
        Self {
            python: named(&config.python, "python3", "python3", "python").and_then(|path| python(&path)),
            node: named(&config.node, "node", "nodejs", "node").and_then(|path| resolved(&path, "--version", 2)),
            go: named(&config.go, "go", "golang-go", "go").and_then(|path| resolved(&path, "version", 2)),
            cxx: named(&config.cxx, "g++", "g++", "cxx").and_then(|path| resolved(&path, "--version", 2)),
        }
    }

    /// Every host directory that one of them needs.
    pub fn shown(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = [&self.python, &self.node, &self.go, &self.cxx]
            .into_iter()
            .flatten()
            .flat_map(|found| found.shown.clone())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// The interpreter of a runtime; native ones need none.
    pub fn of(&self, runtime: Runtime) -> Option<&Found> {
        match runtime {
            Runtime::Python => Some(&self.python),
            Runtime::Nodejs => Some(&self.node),
            Runtime::Provided | Runtime::Go | Runtime::Cpp => None,
        }
    }

    /// The compiler of a runtime that is compiled.
    pub fn compiler(&self, runtime: Runtime) -> Option<&Found> {
        match runtime {
            Runtime::Go => Some(&self.go),
            Runtime::Cpp => Some(&self.cxx),
            _ => None,
        }
    }
}

/// Directories that every sandbox sees anyway.
const SYSTEM: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/sbin"];

fn beyond_system(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().filter(|path| !SYSTEM.iter().any(|system| path.starts_with(system))).collect()
}

fn search(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// What a program prints, first line by line; `None` unless it exits well.
fn printed(program: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().map(str::to_owned).collect())
}

/// A shim (pyenv's, say) is a script that finds the interpreter anew at each start: ask once which one that is.
fn python(path: &Path) -> Found {
    let code = "import sys; print(sys.executable); print(sys.base_prefix); print(sys.prefix); print('%d.%d' % sys.version_info[:2])";
    let broken = || format!("{} does not run; reinstall it or set `runtimes.python` to one that does", path.display());
    let lines = printed(path, &["-I", "-c", code]).ok_or_else(broken)?;
    let [executable, base, prefix, version] = lines.as_slice() else { return Err(broken()) };
    let minor = version.strip_prefix("3.").and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 8) {
        return Err(format!("{executable} is Python {version}; install 3.8 or later or set `runtimes.python` to one"));
    }
    let program = std::fs::canonicalize(executable).map_err(|_| broken())?;
    Ok(Interpreter { program, shown: beyond_system(vec![base.into(), prefix.into()]) })
}

/// A program behind its links, with the directory `levels` above it where its files are.
fn resolved(path: &Path, version_flag: &str, levels: usize) -> Found {
    let broken = || format!("{} does not run; reinstall it", path.display());
    printed(path, &[version_flag]).ok_or_else(broken)?;
    let program = std::fs::canonicalize(path).map_err(|_| broken())?;
    let shown = program.ancestors().nth(levels).map(Path::to_path_buf).into_iter().collect();
    Ok(Interpreter { program, shown: beyond_system(shown) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_mend() {
        let found = Interpreters::find(&Runtimes::default(), "/nonexistent");
        let sentence = found.python.unwrap_err();
        assert!(sentence.contains("apt-get install python3"), "{sentence}");
        let configured = Runtimes { node: "/no/such/node".into(), ..Runtimes::default() };
        assert!(Interpreters::find(&configured, "/nonexistent").node.unwrap_err().contains("runtimes.node"));
    }
}
