//! Exit codes that a script can act on, and the failures they stand for.

use std::process::ExitCode;

/// Shown at the end of `faasd --help`.
pub const HELP: &str = "\
Exit codes:
  0  done; for `invoke`: the function succeeded
  1  the function failed, or `doctor` found something needed missing
  2  wrong usage, wrong configuration, or a request that the daemon refused as invalid
  3  the platform could not: no daemon answers, no capacity, rate limited, internal error
  4  not found, not allowed, gone, or in conflict with what is there";

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What happened has been told already.
    #[error("")]
    Told,
    /// The user must write something else.
    #[error("{0}")]
    Usage(String),
    /// The platform's doing, or nobody answers: the same command may succeed later.
    #[error("{0}")]
    Platform(String),
    /// No such thing, or not for this key.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// The process's exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Told => 1,
            Failure::Usage(_) => 2,
            Failure::Platform(_) => 3,
            Failure::Refused(_) => 4,
        }
    }

    /// Tells the user, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let text = self.to_string();
        if !text.is_empty() {
            eprintln!("faasd: {text}");
        }
        ExitCode::from(self.code())
    }
}
