//! From what a sandbox reported to what the record says: statuses, error types and their sentences.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::function::Version;
use crate::domain::outcome::{ErrorType, Failure, Status};
use crate::ports::sandbox::{Ending, Exit};

use super::cancel::Why;
use super::value;

/// How the kernel ends a process that made a system call which its filter forbids (signal(7), seccomp(2)).
const SIGSYS: i32 = 31;

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

/// What made a call the end of its sandbox, for a metric's label; `None`: it was not. What was asked for from outside comes first.
pub(super) fn cause(ending: &Ending, stop: Option<Stop>, reusable: Result<(), &'static str>) -> Option<&'static str> {
    match (stop, ending) {
        (Some(Stop::Timeout), _) => Some("timeout"),
        (Some(Stop::Cancelled(Why::Asked)), _) => Some("cancelled"),
        (Some(Stop::Cancelled(Why::Draining)), _) => Some("draining"),
        (Some(Stop::Cancelled(Why::LeaseLost)), _) => Some("lease_lost"),
        // Never told once a call has begun.
        (Some(Stop::Cancelled(Why::Withdrawn)), _) => Some("withdrawn"),
        (None, Ending::Died(Exit { out_of_memory: true, .. })) => Some("out_of_memory"),
        (None, Ending::Died(Exit { forbidden_call: Some(_), .. } | Exit { signal: Some(SIGSYS), .. })) => {
            Some("forbidden_call")
        }
        (None, Ending::Died(Exit { signal: Some(_), .. })) => Some("signal"),
        (None, Ending::Died(_)) => Some("exited"),
        (None, Ending::Violated(_)) => Some("protocol"),
        (None, Ending::Spoiled(_)) => Some("spoiled"),
        (None, Ending::ResultTooLarge(_)) => Some("result_too_large"),
        (None, Ending::Returned(_) | Ending::Raised { .. }) => reusable.err(),
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
        Why::Withdrawn => "taken back before it began",
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
        Some(signal) if exit.forbidden_call.is_none() => format!("killed by signal {signal}{}", signal_name(signal)),
        _ => exit.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_ended_a_sandbox_is_named() {
        let died = |exit| Ending::Died(exit);
        let signal = |signal| died(Exit { signal: Some(signal), ..Exit::default() });
        let oom = died(Exit { out_of_memory: true, signal: Some(9), ..Exit::default() });
        for (ending, stop, reusable, expected) in [
            (Ending::Returned("1".into()), None, Ok(()), None),
            (Ending::Returned("1".into()), None, Err("leftover_process"), Some("leftover_process")),
            (Ending::Returned("1".into()), Some(Stop::Timeout), Ok(()), Some("timeout")),
            (signal(15), Some(Stop::Timeout), Err("died"), Some("timeout")),
            (signal(9), Some(Stop::Cancelled(Why::Asked)), Err("died"), Some("cancelled")),
            (oom, None, Err("died"), Some("out_of_memory")),
            (signal(SIGSYS), None, Err("died"), Some("forbidden_call")),
            (signal(11), None, Err("died"), Some("signal")),
            (died(Exit { code: Some(1), ..Exit::default() }), None, Err("died"), Some("exited")),
            (Ending::Violated("lied".to_owned()), None, Err("protocol"), Some("protocol")),
            (Ending::ResultTooLarge(7), None, Err("result_too_large"), Some("result_too_large")),
        ] {
            assert_eq!(cause(&ending, stop, reusable), expected, "{ending:?} {stop:?}");
        }
    }
}
