//! The daemon's ear at a sandbox's filter: counts refused calls by name, answers them, and ends a sandbox for a forbidden one.
//!
//! What a sandbox can make the daemon do is bounded: after a burst its refused calls are answered at a slow pace, and whoever makes them
//! waits, in the sandbox. If the daemon is gone its descriptors are closed, and the kernel answers ENOSYS.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::io::Interest;
use tokio::time::Instant;

use super::{Told, judge};
use crate::sandbox::sys;
use crate::sandbox::sys::seccomp::Notification;

/// Refused calls answered at once: enough for whatever a runtime and its libraries try while they start.
const BURST: u32 = 256;
/// One more each: 20 a second cost the daemon less than a thousandth of a processor.
const PACE: Duration = Duration::from_millis(50);

/// How often each call was refused or forbidden, by all sandboxes.
#[derive(Clone, Debug)]
pub struct Counters {
    refused: IntCounterVec,
    forbidden: IntCounterVec,
}

impl Default for Counters {
    fn default() -> Self {
        let counter = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(name, help), &["call"]).expect("the names and labels in this file are valid")
        };
        Self {
            refused: counter("faasd_sandbox_refused_calls_total", "System calls that a sandbox was refused."),
            forbidden: counter("faasd_sandbox_forbidden_calls_total", "System calls for which a sandbox was ended."),
        }
    }
}

impl Counters {
    /// Has a registry show them.
    pub fn register(&self, registry: &Registry) {
        for counter in [&self.refused, &self.forbidden] {
            if let Err(error) = registry.register(Box::new(counter.clone())) {
                tracing::warn!(%error, "metric not registered");
            }
        }
    }
}

/// Refused calls that are answered at once.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Takes one, or says how long there is none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let gained = now.duration_since(self.since).as_millis() / PACE.as_millis();
        if gained > 0 {
            self.left = u32::try_from(gained).unwrap_or(BURST).saturating_add(self.left).min(BURST);
            self.since = now;
        }
        if self.left == 0 {
            return Err(PACE - now.duration_since(self.since));
        }
        self.left -= 1;
        Ok(())
    }
}

/// Answers refused calls until the sandbox is gone. `end` is given the name of the first forbidden call, and kills the sandbox; this never
/// returns then, for the call would come back if the listener were closed. To be aborted when all is over.
pub async fn listen(
    listener: OwnedFd,
    counters: Counters,
    end: impl FnOnce(&'static str),
) -> Result<(), std::io::Error> {
    let listener = sys::watch(listener, Interest::READABLE)?;
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let mut ready = listener.readable().await?;
        if !sys::seccomp::is_told(listener.as_fd())? {
            ready.clear_ready();
            continue;
        }
        // Before it is taken: until then a signal can still reach who waits.
        while let Err(wait) = allowance.take(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        if let Some(name) = answer(listener.get_ref(), &counters) {
            end(name);
            return std::future::pending().await;
        }
    }
}

/// Takes one call. A forbidden one's name; it is not answered, since its sandbox is to end.
fn answer(listener: &OwnedFd, counters: &Counters) -> Option<&'static str> {
    // Who made it may be gone by now, or while it is answered: then there is nobody to tell.
    let call: Notification = sys::seccomp::told(listener.as_fd()).ok()?;
    match judge(call.number, call.architecture) {
        Told::Refused(name) => {
            counters.refused.with_label_values(&[name]).inc();
            let _ = sys::seccomp::refuse(listener.as_fd(), call, libc::EPERM);
            None
        }
        Told::Forbidden(name) => {
            counters.forbidden.with_label_values(&[name]).inc();
            Some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_at_once_and_a_flood_slowly() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..BURST {
            assert_eq!(allowance.take(start), Ok(()));
        }
        let wait = allowance.take(start).unwrap_err();
        assert_eq!(wait, PACE);
        assert_eq!(allowance.take(start + wait), Ok(()));
        assert!(allowance.take(start + wait).is_err());
        // A flood of ten seconds.
        let mut now = start + wait;
        let mut answered = 0;
        while now < start + Duration::from_secs(10) {
            match allowance.take(now) {
                Ok(()) => answered += 1,
                Err(wait) => now += wait,
            }
        }
        assert!((190..=200).contains(&answered), "{answered}");
        for _ in 0..BURST {
            assert_eq!(allowance.take(now + Duration::from_secs(60)), Ok(()));
        }
    }
}
