//! One try at one worker, from the request to its last frame. While the call waits there for a sandbox, claims are watched: whichever
//! comes first serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::domain::ids::InvocationId;
use crate::domain::invocation::Invocation;
use crate::domain::outcome::Outcome;
use crate::ports::sandbox::{LogSink, Stream};

use super::super::answer::{Answer, Broken};
use super::super::connection::Failed;
use super::super::link::Link;
use super::super::wire::{self, After, CallHead, Claim, Done, IdHead, Malformed, Refusal};
use super::Fleet;
use super::trip::{Stop, Trip};

/// The first look for a claim while a call waits; each next one waits twice as long, up to the last.
const WATCH_FIRST: Duration = Duration::from_millis(2);
const WATCH_LAST: Duration = Duration::from_millis(100);
/// Beyond a call's own time and the grace of its sandbox: for its account.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(10);

pub(super) enum Reply {
    Ended(Box<Outcome>),
    Refused(Refusal),
    /// Taken back from where it waited: it goes there now.
    Moved(Stop),
    Unsent(Failed),
    /// It may have run: what comes is another attempt.
    Lost(Failed),
    Overdue,
}

impl From<Failed> for Reply {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Lost(_) => Reply::Lost(failed),
            Failed::Unsent(_) | Failed::Refused(_) => Reply::Unsent(failed),
        }
    }
}

/// Named as under way there, for as long as this lives.
struct Named<'a> {
    fleet: &'a Fleet,
    id: InvocationId,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.fleet.under().remove(&self.id);
    }
}

/// What is still to be looked for.
struct Watch {
    next: Instant,
    pause: Duration,
}

impl Fleet {
    pub(super) async fn ask(
        &self,
        stop: &Stop,
        invocation: &Arc<Invocation>,
        trip: &Trip,
        log: Option<&dyn LogSink>,
    ) -> Reply {
        let id = invocation.id;
        let body = match self.request(stop, invocation, trip, log.is_some_and(LogSink::is_heard)) {
            Ok(body) => body,
            Err(error) => return Reply::Unsent(Failed::Unsent(error.to_string())),
        };
        let _under = stop.link.enter();
        self.under().insert(id, stop.link.clone());
        let _named = Named { fleet: self, id };
        let grace = Duration::from_millis(self.config.sandbox.grace_ms) + ACCOUNT_WITHIN;
        let overdue = Instant::now() + trip.deadline.saturating_sub(self.now()) + grace;
        let asking = async {
            match stop.link.send(wire::EXECUTE, body).await {
                Ok(answer) => self.hear(answer, stop, invocation, trip, log).await,
                Err(failed) => failed.into(),
            }
        };
        tokio::select! {
            biased;
            reply = asking => reply,
            () = sleep_until(overdue) => {
                // Nobody wants it any more.
                let _ = stop.link.ask::<Done>(wire::CANCEL, &IdHead { id }).await;
                Reply::Overdue
            }
        }
    }

    fn request(&self, stop: &Stop, invocation: &Invocation, trip: &Trip, lines: bool) -> serde_json::Result<Bytes> {
        let version = invocation.version.key();
        let head = CallHead {
            id: invocation.id,
            function: version.function,
            number: version.number,
            attempt: trip.attempt,
            model: invocation.model_id.clone(),
            age_ms: self.clock.now().since(invocation.accepted_at).as_millis() as u64,
            mode: invocation.mode,
            claim: stop.claim,
            acquire_ms: trip.acquire.saturating_sub(self.now().saturating_sub(trip.begun)).as_millis() as u64,
            lines,
            hops: 1,
        };
        wire::body(&head, &invocation.payload)
    }

    async fn hear(
        &self,
        mut answer: Answer,
        stop: &Stop,
        invocation: &Invocation,
        trip: &Trip,
        log: Option<&dyn LogSink>,
    ) -> Reply {
        let mut watch: Option<Watch> = None;
        loop {
            let next = watch.as_ref().map(|watch| watch.next);
            let frame = tokio::select! {
                biased;
                frame = answer.next() => frame,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if let Some(moved) = self.better(&stop.link, invocation, trip, &mut watch).await {
                        return Reply::Moved(moved);
                    }
                    continue;
                }
            };
            let (kind, bytes) = match frame {
                Ok(frame) => frame,
                Err(Broken::Gone(why)) => return Reply::Lost(Failed::Lost(why)),
                Err(Broken::Lie(why)) => return lie(why),
            };
            match kind {
                wire::WAITS if stop.claim == Claim::None => {
                    watch = Some(Watch { next: Instant::now() + WATCH_FIRST, pause: WATCH_FIRST });
                }
                wire::BEGINS => watch = None,
                wire::LINE => match (line(&bytes), log) {
                    (Some((stream, text)), Some(log)) => log.line(stream, text),
                    (Some(_), None) => {}
                    (None, _) => return lie(Malformed("it sent a line that is none")),
                },
                wire::OUTCOME => return self.ended(bytes, answer, stop, invocation, trip),
                wire::REFUSED => {
                    return match wire::read_refusal(&bytes) {
                        Ok(refusal) => Reply::Refused(refusal),
                        Err(why) => lie(why),
                    };
                }
                _ => return lie(Malformed("it answered a call with something else")),
            }
        }
    }

    fn ended(&self, bytes: Bytes, answer: Answer, stop: &Stop, invocation: &Invocation, trip: &Trip) -> Reply {
        let most = self.config.limits.result_bytes;
        match wire::read_outcome(bytes, invocation.id, trip.attempt, stop.link.worker, most) {
            Ok((outcome, After { kept, storing })) => {
                if kept {
                    self.held.keep(invocation.version.key(), stop.link.worker, self.now());
                }
                if storing {
                    self.being_stored().insert(invocation.id, answer);
                }
                Reply::Ended(Box::new(outcome))
            }
            Err(why) => lie(why),
        }
    }

    /// Whether somebody else has a sandbox while the call waits for one here; then it is taken back, unless it has just begun.
    async fn better(
        &self,
        link: &Link,
        invocation: &Invocation,
        trip: &Trip,
        watch: &mut Option<Watch>,
    ) -> Option<Stop> {
        let version = invocation.version.key();
        let found = self.find_claim(version).await;
        let stop = found.and_then(|(worker, claim)| {
            let stop = self.stop_at(worker, claim, trip);
            if stop.is_none() {
                self.keep_unknown(version, worker);
            }
            stop
        });
        if let Some(stop) = stop {
            let withdrawn = link.ask::<Done>(wire::WITHDRAW, &IdHead { id: invocation.id }).await;
            if matches!(withdrawn, Ok(Done { done: true })) {
                return Some(Stop { stolen: true, ..stop });
            }
            // It runs by now: the claim is somebody else's luck.
            self.held.keep(version, stop.link.worker, self.now());
            *watch = None;
            return None;
        }
        if let Some(watch) = watch {
            watch.pause = (watch.pause * 2).min(WATCH_LAST);
            watch.next = Instant::now() + watch.pause;
        }
        None
    }
}

/// A worker that says what can't be may have run the call all the same.
fn lie(why: Malformed) -> Reply {
    Reply::Lost(Failed::Refused(format!("the worker's answer is none: {why}")))
}

pub(super) fn line(bytes: &[u8]) -> Option<(Stream, &str)> {
    let (stream, text) = bytes.split_first()?;
    let stream = match stream {
        0 => Stream::Stdout,
        1 => Stream::Stderr,
        _ => return None,
    };
    Some((stream, std::str::from_utf8(text).ok()?))
}
