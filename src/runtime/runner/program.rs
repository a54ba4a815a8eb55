//! The user's program as a child process, and how it ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::printed::Printed;
use crate::runtime::wire::RuntimeError;

/// Linux's MAX_ARG_STRLEN: no single environment variable, name included, can be larger.
const ENV_ENTRY_BYTES_MAX: usize = 128 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// A running program.
pub(super) struct Program {
    pid: Pid,
    /// What of its input is still to be written.
    pub stdin: Option<(ChildStdin, Vec<u8>)>,
    pub stdout: Option<ChildStdout>,
    pub printed: Printed,
}

/// How to start one.
pub(super) struct Start<'a> {
    pub command: Command,
    pub env: &'a BTreeMap<String, String>,
    pub directory: &'a Path,
    /// Written to its stdin; `None` closes that.
    pub input: Option<Vec<u8>>,
    /// Whether its stdout is read here or goes where ours does.
    pub captured: bool,
    /// Signals that are blocked here and must not be there.
    pub blocked: &'a SigSet,
}

impl Program {
    pub fn start(start: Start<'_>) -> io::Result<Self> {
        let Start { mut command, env, directory, input, captured, blocked } = start;
        command.env_clear().envs(env).current_dir(directory);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        if captured {
            command.stdout(Stdio::piped());
        }
        // A child inherits the mask. A SIGCHLD that comes meanwhile is lost: the caller asks for the child's state afterwards.
        blocked.thread_unblock()?;
        let child = command.spawn();
        blocked.thread_block()?;
        let mut child = child?;
        let stdin = child.stdin.take().zip(input);
        let stdout = child.stdout.take();
        if let Some((stdin, _)) = &stdin {
            never_block(stdin)?;
        }
        if let Some(stdout) = &stdout {
            never_block(stdout)?;
        }
        Ok(Self { pid: Pid::from_raw(child.id().cast_signed()), stdin, stdout, printed: Printed::default() })
    }

    /// One that a launch pad became.
    pub fn launched(pid: Pid) -> Self {
        Self { pid, stdin: None, stdout: None, printed: Printed::default() }
    }

    /// Writes as much input as fits; closes it after the last byte, or when nobody reads it.
    pub fn feed(&mut self) {
        let Some((stdin, rest)) = &mut self.stdin else { return };
        match stdin.write(rest) {
            Ok(written) if written < rest.len() => drop(rest.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.stdin = None,
        }
    }

    /// Takes what it has printed by now. `log` gets what is certainly not the value, or all where there can be none.
    pub fn drain(&mut self, log: &mut File, all_is_log: bool) -> io::Result<()> {
        if all_is_log {
            self.printed.flush(log)?;
        }
        let mut chunk = match &self.stdout {
            Some(_) => vec![0; READ_BYTES],
            None => Vec::new(),
        };
        while let Some(stdout) = &mut self.stdout {
            match stdout.read(&mut chunk) {
                Ok(0) => self.stdout = None,
                Ok(read) if all_is_log => log.write_all(&chunk[..read])?,
                Ok(read) => self.printed.add(&chunk[..read], log)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// How it ended, if it has. Not to be asked again then.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        Ok(match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
            WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
            _ => None,
        })
    }

    pub fn signal(&self, signal: Signal) {
        // ESRCH only: it is not reaped before `ended` says so, and not signalled after.
        let _ = nix::sys::signal::kill(self.pid, signal);
    }
}

fn never_block(fd: &impl AsFd) -> Result<(), Errno> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// Whether `payload` can go into the environment under `name`.
pub(super) fn fits_environment(name: &str, payload: &[u8]) -> bool {
    name.len() + payload.len() + 2 <= ENV_ENTRY_BYTES_MAX && !payload.contains(&0)
}

/// `exited with code 3`, `killed by signal 11 (SIGSEGV)`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by signal {number} ({signal})"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => "ended for an unknown reason".to_owned(),
    }
}

/// Why the program at `path` can't be started: for a file that is missing or not executable, before it is tried.
pub(super) fn check(path: &Path) -> Result<(), RuntimeError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let refuse = |message: String| {
        Err(RuntimeError { error_type: "HandlerNotFound".to_owned(), error_message: message, stack_trace: Vec::new() })
    };
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() => refuse(format!("{name} in the package is not a file")),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => {
            refuse(format!("{name} in the package is not executable"))
        }
        Ok(_) => Ok(()),
        Err(_) => refuse(format!("the package has no executable file {name}")),
    }
}

/// Why starting it failed, with what usually is the matter.
pub(super) fn not_started(path: &Path, error: &io::Error) -> RuntimeError {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hint = match error.raw_os_error() {
        Some(libc::ENOEXEC) => "; it must be a Linux program for this machine's processor, or begin with #!",
        Some(libc::ENOENT) => {
            "; its interpreter or dynamic loader is not there: link it statically, or name one that is in its #! line"
        }
        _ => "",
    };
    let error_message = format!("{name} can't be started: {error}{hint}");
    RuntimeError { error_type: "ExecError".to_owned(), error_message, stack_trace: Vec::new() }
}
