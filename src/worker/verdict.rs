//! From what a sandbox reported to what the record says: statuses, error types and their sentences.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::function::Version;
use crate::domain::outcome::{ErrorType, Failure, Status};
use crate::ports::sandbox::{Ending, Exit};

use super::cancel::Why;
use super::value;

/// Why a call was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Timeout,
    Cancelled(Why),
}

/// How the attempt ended, without what it printed and used.
#[derive(Debug)]
pub(super) struct Verdict {
    pub status: Status,
    pub result: Option<Arc<RawValue>>,
    pub failure: Option<Failure>,
    pub exit_code: Option<i32>,
    /// Whether what the sandbox said is what its runtime would have said. Ours send JSON only.
    pub is_credible: bool,
}

impl Verdict {
    fn failed(error_type: ErrorType, message: impl Into<String>, exit_code: Option<i32>) -> Self {
        let failure = Some(Failure::new(error_type, message));
        Self { status: Status::Failed, result: None, failure, exit_code, is_credible: true }
    }
}

/// What was asked for from outside decides; else what the sandbox did.
pub(super) fn of(ending: Ending, stop: Option<Stop>, version: &Version, result_bytes_max: u64) -> Verdict {
    match stop {
        Some(Stop::Timeout) => timed_out(version, &ending),
        Some(Stop::Cancelled(why)) => cancelled(why),
        None => by_itself(ending, version, result_bytes_max),
    }
}

fn timed_out(version: &Version, ending: &Ending) -> Verdict {
    let limit = humantime::format_duration(Duration::from_millis(version.timeout_ms));
    let message = format!("ran longer than its timeout of {limit}");
    let exit_code = match ending {
        Ending::Died(exit) => exit.code,
        _ => None,
    };
    let failure = Some(Failure::new(ErrorType::Timeout, message));
    Verdict { status: Status::Timeout, result: None, failure, exit_code, is_credible: true }
}

pub(super) fn cancelled(why: Why) -> Verdict {
    let message = match why {
        Why::Asked => "cancelled on request",
        Why::Draining => "the worker shut down before the call ended",
        Why::LeaseLost => "another worker took the job over",
    };
    let failure = Some(Failure::new(ErrorType::Cancelled, message));
    Verdict { status: Status::Cancelled, result: None, failure, exit_code: None, is_credible: true }
}

fn by_itself(ending: Ending, version: &Version, result_bytes_max: u64) -> Verdict {
    match ending {
        Ending::Returned(bytes) => match value::checked(&bytes) {
            Ok(value) => succeeded(value),
            Err(what) => {
                let failed = Verdict::failed(ErrorType::FunctionError, format!("returned {what}"), None);
                Verdict { is_credible: false, ..failed }
            }
        },
        Ending::Raised { failure, exit_code } => {
            Verdict { status: Status::Failed, result: None, failure: Some(failure), exit_code, is_credible: true }
        }
        Ending::ResultTooLarge(bytes) => {
            let message =
                format!("the result is {bytes} bytes, {result_bytes_max} are allowed: leave it as a file in /output");
            Verdict::failed(ErrorType::OutputTooLarge, message, None)
        }
        Ending::Died(exit) => died(exit, version),
        Ending::Violated(how) => Verdict::failed(ErrorType::Crashed, how, None),
        Ending::Spoiled(why) => {
            Verdict::failed(ErrorType::Crashed, format!("each sandbox tried {why} before it was called"), None)
        }
    }
}

fn succeeded(value: Arc<RawValue>) -> Verdict {
    Verdict { status: Status::Success, result: Some(value), failure: None, exit_code: None, is_credible: true }
}

fn died(exit: Exit, version: &Version) -> Verdict {
    if exit.out_of_memory {
        let message = format!("used more than its {} MB of memory", version.memory_mb);
        return Verdict::failed(ErrorType::OutOfMemory, message, exit.code);
    }
    let message = match exit.signal {
        Some(signal) => format!("killed by signal {signal}{}", signal_name(signal)),
        None => exit.to_string(),
    };
    Verdict::failed(ErrorType::Crashed, message, exit.code)
}

/// ` (SIGSEGV)`; numbers as on Linux x86-64 and arm64 (signal(7)).
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}
