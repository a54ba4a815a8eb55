//! Interpreters and compilers: whether they run, which version, and where they really are behind shims and links.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Check;

/// A program that does not tell its version within ten seconds is as good as absent.
const LOOKS_MAX: u32 = 500;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// What a runtime needs of the host.
struct Program {
    /// The runtimes that need it.
    runtime: &'static str,
    command: &'static str,
    /// Prints the version in one line.
    version: &'static [&'static str],
    /// Prints the real path in one line; without it the path is looked up.
    place: Option<&'static [&'static str]>,
    package: &'static str,
}

const PROGRAMS: [Program; 4] = [
    Program {
        runtime: "python",
        command: "python3",
        version: &["--version"],
        place: Some(&["-c", "import os, sys; print(os.path.realpath(sys.executable))"]),
        package: "python3",
    },
    Program {
        runtime: "nodejs",
        command: "node",
        version: &["--version"],
        place: Some(&["-p", "require('fs').realpathSync(process.execPath)"]),
        package: "nodejs",
    },
    Program {
        runtime: "go",
        command: "go",
        version: &["version"],
        place: Some(&["env", "GOROOT"]),
        package: "golang-go",
    },
    Program { runtime: "cpp", command: "g++", version: &["--version"], place: None, package: "g++" },
];

/// A check for each runtime. Those without their program still leave the others to use, so none is a must.
pub(super) fn checks() -> Vec<Check> {
    PROGRAMS.iter().map(check).collect()
}

fn check(program: &Program) -> Check {
    let name = format!("runtime {}", program.runtime);
    let Some(version) = first_line(program.command, program.version) else {
        let compiled = if matches!(program.runtime, "go" | "cpp") { "; a prebuilt `main` runs without it" } else { "" };
        return Check::weak(
            &name,
            format!("`{}` does not run{compiled}", program.command),
            format!("apt-get install {}, or set the path in [runtimes]", program.package),
        );
    };
    let place = match program.place {
        Some(arguments) => first_line(program.command, arguments),
        None => first_line("sh", &["-c", &format!("readlink -f \"$(command -v {})\"", program.command)]),
    };
    Check::good(&name, format!("{version}, {}", place.unwrap_or_else(|| "its real path is unknown".to_owned())))
}

/// The first line that a command prints, if it succeeds in time.
fn first_line(command: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(command);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let succeeded = ends_well(&mut child);
    if !succeeded {
        // It may be over already; either way it is reaped here.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut text = String::new();
    child.stdout.take()?.take(LINE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// Whether the command succeeds within [`LOOKS_MAX`] looks. One that prints more than a pipe holds never ends, and so does not.
fn ends_well(child: &mut Child) -> bool {
    for _ in 0..LOOKS_MAX {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Ok(Some(status)) => return status.success(),
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_the_first_line_counts_if_it_succeeds() {
        assert_eq!(first_line("sh", &["-c", "echo one; echo two"]).as_deref(), Some("one"));
        assert_eq!(first_line("sh", &["-c", "echo one; exit 1"]), None);
        assert_eq!(first_line("sh", &["-c", "true"]), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let absent = Program { command: "no-such-program-here", ..PROGRAMS[2] };
        let check = check(&absent);
        assert_eq!(check.state, super::super::State::Weak);
        assert!(check.detail.contains("prebuilt") && check.mend.contains("golang-go"), "{check:?}");
    }

    #[test]
    fn only_success_counts() {
        assert_eq!(first_line("sh", &["-c", "echo one; echo two"]).as_deref(), Some("one"));
        assert_eq!(first_line("sh", &["-c", "echo one; exit 1"]), None);
        assert_eq!(first_line("true", &[]), None);
    }
}
