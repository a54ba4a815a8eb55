//! One call on its way: which worker next, what each answered, when to give up.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::ids::{VersionKey, WorkerId};
use crate::domain::invocation::Invocation;
use crate::domain::outcome::{Outcome, StartType};
use crate::ports::executor::ExecuteError;
use crate::ports::sandbox::LogSink;

use super::super::link::Link;
use super::super::wire::{Claim, Refusal};
use super::Fleet;
use super::ask::Reply;

/// Workers that one call is tried at.
pub(super) const PLACES_MAX: usize = 6;
/// Claims that one call tries: as many stale ones in a row say that they are all old.
const CLAIMS_MAX: usize = 8;

/// Where a call goes next.
#[derive(Clone)]
pub(super) struct Stop {
    pub link: Arc<Link>,
    pub claim: Claim,
    /// It waited elsewhere before.
    pub stolen: bool,
}

pub(super) struct Trip {
    pub attempt: u32,
    /// Monotonic.
    pub begun: Duration,
    pub acquire: Duration,
    pub deadline: Duration,
    /// Not asked again.
    pub tried: Vec<WorkerId>,
    claims_left: usize,
    /// Of those that were asked and had a reason.
    refusal: Option<ExecuteError>,
    /// Why the last attempt was none.
    lost: Option<String>,
}

pub(super) fn execute_error(refusal: Refusal) -> ExecuteError {
    let after = |ms: u64| Duration::from_millis(ms).clamp(Duration::from_millis(1), RETRY_AFTER_MAX);
    match refusal {
        Refusal::NoCapacity { reason, retry_ms } => ExecuteError::NoCapacity { reason, retry_after: after(retry_ms) },
        Refusal::TooManyCalls { reason, retry_ms } => {
            ExecuteError::TooManyCalls { reason, retry_after: after(retry_ms) }
        }
        Refusal::Draining => ExecuteError::Draining,
        Refusal::Stale => ExecuteError::Stale,
        Refusal::Withdrawn => ExecuteError::Withdrawn,
        Refusal::Unsupported { reason } | Refusal::NoCompiler { reason } => ExecuteError::Unsupported(reason),
        Refusal::Platform { reason } | Refusal::Rejected { reason } => ExecuteError::Platform(reason),
    }
}

/// A worker may ask its callers to wait for no longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

impl Fleet {
    pub(super) async fn travel(
        &self,
        invocation: &Arc<Invocation>,
        acquire: Duration,
        log: Option<&dyn LogSink>,
    ) -> Result<Outcome, ExecuteError> {
        let begun = self.now();
        let mut trip = Trip {
            attempt: invocation.attempt,
            begun,
            acquire,
            deadline: begun + acquire + Duration::from_millis(invocation.version.timeout_ms),
            tried: Vec::new(),
            claims_left: CLAIMS_MAX,
            refusal: None,
            lost: None,
        };
        let mut next = None;
        while self.now() < trip.deadline && trip.tried.len() < PLACES_MAX {
            let stop = match next.take() {
                Some(stop) => stop,
                None => match self.next_stop(invocation, &mut trip).await {
                    Some(stop) => stop,
                    None => break,
                },
            };
            let by = match (stop.stolen, stop.claim) {
                (true, _) => "stolen",
                (_, Claim::Held) => "held",
                (_, Claim::Taken) => "claim",
                (_, Claim::None) => "placement",
            };
            self.metrics.sent.with_label_values(&[by]).inc();
            match self.ask(&stop, invocation, &trip, log).await {
                Reply::Ended(mut outcome) => {
                    if stop.stolen {
                        outcome.start_type = outcome.start_type.map(|_| StartType::Stolen);
                    }
                    let waited = self.now().saturating_sub(begun).as_micros() as u64;
                    // The way and the tries before are part of it.
                    outcome.timings.total_us = outcome.timings.total_us.max(waited);
                    return Ok(*outcome);
                }
                Reply::Moved(stop) => {
                    self.metrics.stolen.inc();
                    next = Some(stop);
                }
                reply => self.mind(reply, &stop, &mut trip)?,
            }
            if trip.attempt - invocation.attempt >= self.config.queue.attempts_max {
                break;
            }
        }
        Err(trip.end(invocation.attempt, self.config.queue.attempts_max))
    }

    /// What a try that was none means for the next.
    fn mind(&self, reply: Reply, stop: &Stop, trip: &mut Trip) -> Result<(), ExecuteError> {
        let retried = |reason: &str| self.metrics.retries.with_label_values(&[reason]).inc();
        let worker = stop.link.worker;
        match reply {
            Reply::Refused(Refusal::Stale) => {
                self.metrics.stale.inc();
                return Ok(());
            }
            Reply::Refused(refusal) => {
                if refusal == Refusal::Draining {
                    self.held.forget(worker);
                    retried("draining");
                } else {
                    retried("refused");
                    if matches!(refusal, Refusal::Platform { .. }) {
                        // It may have begun.
                        trip.attempt += 1;
                    }
                    trip.refusal = Some(execute_error(refusal));
                }
            }
            Reply::Unsent(failed) => {
                retried("unreachable");
                self.set_aside(&stop.link, &failed);
            }
            Reply::Lost(failed) => {
                retried("lost");
                self.set_aside(&stop.link, &failed);
                trip.attempt += 1;
                trip.lost = Some(failed.to_string());
            }
            Reply::Overdue => {
                return Err(ExecuteError::Platform(
                    "the worker gave no account of the call in time; it may still run there".to_owned(),
                ));
            }
            Reply::Ended(_) | Reply::Moved(_) => return Ok(()),
        }
        trip.tried.push(worker);
        Ok(())
    }

    async fn next_stop(&self, invocation: &Invocation, trip: &mut Trip) -> Option<Stop> {
        let version = invocation.version.key();
        while trip.claims_left > 0 {
            trip.claims_left -= 1;
            let Some((worker, claim)) = self.find_claim(version).await else { break };
            match self.stop_at(worker, claim, trip) {
                Some(stop) => return Some(stop),
                None => self.keep_unknown(version, worker),
            }
        }
        let mut links = self.links.candidates(version, &trip.tried, 1, self.now());
        Some(Stop { link: links.pop()?, claim: Claim::None, stolen: false })
    }

    /// A claim of a worker that is not known yet is good in a moment. One of this process's own has been tried before any.
    pub(super) fn keep_unknown(&self, version: VersionKey, worker: WorkerId) {
        if self.links.get(worker).is_none() && !self.links.is_own(worker) {
            self.held.keep(version, worker, self.now());
        }
    }

    /// `None`: that worker is not known, or has had its try.
    pub(super) fn stop_at(&self, worker: WorkerId, claim: Claim, trip: &Trip) -> Option<Stop> {
        let link = self.links.get(worker).filter(|link| !trip.tried.contains(&link.worker))?;
        (!link.is_aside(self.now())).then_some(Stop { link, claim, stolen: false })
    }
}

impl Trip {
    /// A call that was lost before its attempts were used up may still run elsewhere: where nobody is left to ask, the queue has it.
    fn end(self, first_attempt: u32, attempts_max: u32) -> ExecuteError {
        let attempts = self.attempt - first_attempt;
        match (self.refusal, self.lost) {
            (_, Some(lost)) if attempts >= attempts_max => {
                ExecuteError::Platform(format!("no worker ran it to its end in {attempts} attempts; the last: {lost}"))
            }
            (_, Some(lost)) => ExecuteError::Unreachable(format!("nobody is left to ask; the last: {lost}")),
            (Some(refusal), None) => refusal,
            (None, None) if self.tried.is_empty() => {
                ExecuteError::Unreachable("none is known of that takes work".to_owned())
            }
            (None, None) => ExecuteError::Unreachable(format!("{} were asked", self.tried.len())),
        }
    }
}
