//! One invocation from its checkout to its outcome: timeout and cancellation enforced, the sandbox returned before the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::function::Version;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{ErrorType, Failure, Outcome, StartType, Status, Timings};
use crate::ports::executor::ExecuteError;
use crate::ports::sandbox::{Ending, LogSink, Report, Sandbox, SandboxError};

use super::Worker;
use super::advisors;
use super::cancel::{Cancel, Why};
use super::handle::Handle;
use super::sandboxes::{Checkout, CreationFailure, NoSandbox, Wait};
use super::uploads::Named;
use super::verdict::{self, Stop, Verdict};

/// What a refused caller is told to wait before it asks again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Sandboxes that a call is given one after the other, where those before were spoiled when it came.
const SANDBOX_TRIES_MAX: u32 = 4;
/// A call whose sandbox is gone must say so within this.
const REPORT_GRACE: Duration = Duration::from_secs(5);
/// Between SIGTERM and SIGKILL where the drain time is over already.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl Worker {
    pub(super) async fn run_invocation(
        &self,
        invocation: &Arc<Invocation>,
        wait: Wait,
        acquire_timeout: Duration,
        log: Option<Arc<dyn LogSink>>,
    ) -> Result<Outcome, ExecuteError> {
        let begun = self.clock.monotonic();
        let entry = self.calls.enter(invocation.id);
        // What the queue holds has been promised to be done, and nobody waits for it at a connection of this node's.
        let queue = match wait {
            Wait::Patiently => self.clock.now().since(invocation.accepted_at),
            Wait::InLine | Wait::Never => Duration::ZERO,
        };
        let mut tries_left = SANDBOX_TRIES_MAX;
        let mut waited = Duration::ZERO;
        let (mut outcome, handle) = loop {
            tries_left -= 1;
            let left = acquire_timeout.saturating_sub(waited);
            let checked_out =
                self.sandboxes.check_out(&invocation.version, wait, left, &entry.cancel, log.as_deref()).await;
            waited = self.clock.monotonic().saturating_sub(begun);
            if checked_out.is_ok() && !entry.cancel.begin() {
                return Err(ExecuteError::Withdrawn);
            }
            match checked_out {
                Ok(checkout) => {
                    let handle = checkout.handle.clone();
                    let called = self.call(invocation, checkout, waited, log.as_deref(), &entry.cancel, tries_left > 0);
                    match called.await? {
                        Some(outcome) => break (outcome, Some(handle)),
                        None => self.metrics.moved.inc(),
                    }
                }
                Err(no) => break (self.without_sandbox(no, &invocation.version, acquire_timeout, waited)?, None),
            }
        };
        let took = self.clock.monotonic().saturating_sub(begun);
        outcome.timings.queue_us = micros(queue);
        outcome.timings.total_us = micros(queue + took);
        let runtime = invocation.version.runtime;
        match handle.as_ref().and_then(|handle| handle.special.get()) {
            Some(special) => {
                self.metrics.ended(&special.metrics, runtime, &outcome, took);
                let ran = special.advisor.as_ref().filter(|_| outcome.start_type.is_some());
                outcome.advice =
                    ran.and_then(|advisor| advisor.note(&advisors::used(&outcome, took.saturating_sub(waited))));
            }
            None => {
                let function = self.metrics.function(&invocation.version.function_name);
                self.metrics.ended(&function, runtime, &outcome, took);
            }
        }
        Ok(outcome)
    }

    /// `None`: the sandbox was spoiled before the call began, and the call may go to another.
    async fn call(
        &self,
        invocation: &Invocation,
        mut checkout: Checkout,
        waited: Duration,
        log: Option<&dyn LogSink>,
        cancel: &Cancel,
        may_move: bool,
    ) -> Result<Option<Outcome>, ExecuteError> {
        let start_type = checkout.start_type;
        if let Err(error) = checkout.begin() {
            checkout.check_in(false, None);
            return Err(platform(&error));
        }
        let handle = checkout.handle.clone();
        let (report, stop) = self.invoke(invocation, &*handle.sandbox, log, cancel).await;
        let Some(report) = report else {
            checkout.check_in(false, Some(Duration::ZERO));
            let silent = verdict::of(
                Ending::Violated("gave no account of the call".to_owned()),
                stop,
                &invocation.version,
                self.config.limits.result_bytes,
            );
            return Ok(Some(outcome_of(silent, start_type)));
        };
        if let (Ending::Spoiled(why), None, true) = (&report.ending, stop, may_move) {
            tracing::debug!(sandbox_id = %handle.id, why, "sandbox spoiled between calls");
            checkout.check_in(false, None);
            return Ok(None);
        }
        if let Err(reason) = report.reusable {
            tracing::debug!(sandbox_id = %handle.id, reason, "sandbox not reusable");
        }
        if let Some(cause) = verdict::cause(&report.ending, stop, report.reusable) {
            self.metrics.killed(cause);
        }
        let cpu = Duration::from_micros(report.usage.cpu_us);
        let mut report = report;
        let ending = std::mem::replace(&mut report.ending, Ending::Returned(Bytes::new()));
        let verdict = verdict::of(ending, stop, &invocation.version, self.config.limits.result_bytes);
        checkout.check_in(report.reusable.is_ok() && stop.is_none() && verdict.is_credible, Some(cpu));
        let times = acquire_times(&handle, start_type, waited);
        Ok(Some(self.outcome(invocation, report, verdict, start_type, times).await))
    }

    /// The call runs to its end even when it is told to stop: the sandbox then ends, and the call with it. `None`: it did not
    /// end with its sandbox.
    pub(super) async fn invoke(
        &self,
        invocation: &Invocation,
        sandbox: &dyn Sandbox,
        log: Option<&dyn LogSink>,
        cancel: &Cancel,
    ) -> (Option<Report>, Option<Stop>) {
        let mut call = sandbox.invoke(invocation, log);
        let timeout = tokio::time::sleep(Duration::from_millis(invocation.version.timeout_ms));
        let stop = tokio::select! {
            biased;
            report = &mut call => return (Some(report), None),
            () = timeout => Stop::Timeout,
            why = cancel.told() => Stop::Cancelled(why),
        };
        let grace = match stop {
            Stop::Cancelled(Why::Draining) => DRAIN_GRACE.min(self.grace),
            _ => self.grace,
        };
        let ended = async {
            sandbox.terminate(grace).await;
            tokio::time::sleep(REPORT_GRACE).await;
        };
        // A function that answers within its grace has had its say: whoever returns the sandbox ends it then.
        let report = tokio::select! {
            biased;
            report = &mut call => Some(report),
            () = ended => None,
        };
        (report, Some(stop))
    }

    async fn outcome(
        &self,
        invocation: &Invocation,
        report: Report,
        verdict: Verdict,
        start_type: StartType,
        (acquire, init): (Duration, Duration),
    ) -> Outcome {
        let Report { stdout, stderr, full_log, usage, handler_us, llm_token_count, output_files, .. } = report;
        let Named { log, files, lost } = self.uploads.take(invocation.id, full_log, output_files).await;
        let mut outcome = Outcome {
            stdout,
            stderr,
            log_artifact: log,
            timings: Timings { acquire_us: micros(acquire), init_us: micros(init), handler_us, ..Timings::default() },
            usage,
            output_files: files,
            llm_token_count,
            ..outcome_of(verdict, start_type)
        };
        outcome.lose(&lost);
        outcome
    }

    fn without_sandbox(
        &self,
        no: NoSandbox,
        version: &Version,
        acquire_timeout: Duration,
        waited: Duration,
    ) -> Result<Outcome, ExecuteError> {
        let no_capacity = |reason| ExecuteError::NoCapacity { reason, retry_after: RETRY_AFTER };
        match no {
            NoSandbox::WaitersFull => Err(no_capacity("too many calls wait for a sandbox already".to_owned())),
            NoSandbox::Overloaded => Err(no_capacity(format!(
                "more calls of this function come than this node completes, and the line is longer than {} (pool.queue_wait_ms)",
                humantime::format_duration(self.sandboxes.with_pool(|pool| pool.settings().queue_wait_max))
            ))),
            NoSandbox::OwnerFull => Err(ExecuteError::TooManyCalls {
                reason: format!(
                    "{} calls of {} run or wait already, as many as one owner may have at once",
                    self.sandboxes.with_pool(|pool| pool.settings().share.calls),
                    version.owner
                ),
                retry_after: RETRY_AFTER,
            }),
            NoSandbox::TimedOut => {
                let limit = humantime::format_duration(acquire_timeout);
                Err(no_capacity(format!("no sandbox became free within {limit}")))
            }
            NoSandbox::TooLarge => Err(ExecuteError::Unsupported(format!(
                "the function wants {} MB, more than this worker may give its sandboxes together: \
                 lower its memory or raise pool.memory_budget_mb",
                version.memory_mb
            ))),
            NoSandbox::Draining => Err(ExecuteError::Draining),
            NoSandbox::Stale => Err(ExecuteError::Stale),
            NoSandbox::Cancelled(Why::Withdrawn) => Err(ExecuteError::Withdrawn),
            NoSandbox::Cancelled(why) => {
                let Verdict { status, failure, .. } = verdict::cancelled(why);
                let failure = failure.unwrap_or_else(|| Failure::new(ErrorType::Cancelled, "cancelled"));
                let mut outcome = Outcome::without_execution(status, failure);
                outcome.timings.acquire_us = micros(waited);
                Ok(outcome)
            }
            NoSandbox::Failed(failure) => creation_failed(*failure, waited),
        }
    }
}

fn creation_failed(failure: CreationFailure, waited: Duration) -> Result<Outcome, ExecuteError> {
    match failure {
        CreationFailure::Init { failure, stdout, stderr, took } => {
            let timings = Timings {
                acquire_us: micros(waited.saturating_sub(took)),
                init_us: micros(took),
                ..Timings::default()
            };
            Ok(Outcome { stdout, stderr, timings, ..Outcome::without_execution(Status::Failed, failure) })
        }
        CreationFailure::Code(error) => Err(ExecuteError::Platform(error.to_string())),
        CreationFailure::Sandbox(error) => Err(platform(&error)),
    }
}

pub(super) fn platform(error: &SandboxError) -> ExecuteError {
    match error {
        SandboxError::Unsupported(sentence) => ExecuteError::Unsupported(sentence.clone()),
        SandboxError::Cancelled => ExecuteError::Draining,
        SandboxError::Failed { .. } | SandboxError::Ended(_) => {
            ExecuteError::Platform(format!("make a sandbox: {error}"))
        }
    }
}

fn outcome_of(verdict: Verdict, start_type: StartType) -> Outcome {
    Outcome {
        status: verdict.status,
        result: verdict.result,
        failure: verdict.failure,
        exit_code: verdict.exit_code,
        stdout: Default::default(),
        stderr: Default::default(),
        log_artifact: None,
        start_type: Some(start_type),
        timings: Timings::default(),
        usage: Default::default(),
        output_files: Vec::new(),
        llm_token_count: None,
        advice: None,
        place: None,
    }
}

/// The wait for a sandbox, and of that the loading of the code where this call waited for it.
fn acquire_times(handle: &Handle, start_type: StartType, waited: Duration) -> (Duration, Duration) {
    let made_for_it = matches!(start_type, StartType::Cold | StartType::Prewarmed);
    let init = match handle.special.get() {
        Some(special) if made_for_it => special.init.min(waited),
        _ => Duration::ZERO,
    };
    (waited - init, init)
}
