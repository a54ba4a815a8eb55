//! Gives memory back that the start or the last rush of calls needed and the quiet after it does not.

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::sandbox::{release_code, release_heap};

/// After the start: by then what connects in the background has mostly done so.
const FIRST_AFTER: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Quiet is an interval in which the process computed for less than a tenth of one processor.
const QUIET_MS: i64 = LOOK_EVERY.as_millis() as i64 / 10;
/// Pages (16 MiB) that came in since the last time: with fewer there is not much to give back.
const FAULTS_MIN: i64 = 4096;

/// What the process had used at a look.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Used {
    cpu_ms: i64,
    faults: i64,
}

impl From<Usage> for Used {
    fn from(usage: Usage) -> Self {
        let cpu = usage.user_time() + usage.system_time();
        Self { cpu_ms: cpu.num_milliseconds(), faults: usage.minor_page_faults() }
    }
}

/// Decides at each look whether it is worth it now.
struct Watch {
    last: Used,
    given_back_at: i64,
}

impl Watch {
    fn new(now: Used) -> Self {
        Self { last: now, given_back_at: now.faults }
    }

    fn is_due(&mut self, now: Used) -> bool {
        let is_quiet = now.cpu_ms - self.last.cpu_ms < QUIET_MS;
        self.last = now;
        let is_due = is_quiet && now.faults - self.given_back_at >= FAULTS_MIN;
        if is_due {
            self.given_back_at = now.faults;
        }
        is_due
    }
}

/// Looks until it is dropped.
pub(super) async fn give_back() {
    tokio::time::sleep(FIRST_AFTER).await;
    release_heap();
    // Most of it is never used again: what is comes back from the page cache, some tens of pages at a time.
    release_code();
    let used = || getrusage(UsageWho::RUSAGE_SELF).map(Used::from);
    let Ok(mut watch) = used().map(Watch::new) else { return };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if used().is_ok_and(|now| watch.is_due(now)) {
            release_heap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_a_rush_and_not_during_it() {
        let used = |cpu_ms, faults| Used { cpu_ms, faults };
        let mut watch = Watch::new(used(500, 10_000));
        assert!(!watch.is_due(used(510, 10_100)), "nothing came in");
        assert!(!watch.is_due(used(9_000, 40_000)), "in the rush");
        assert!(watch.is_due(used(9_100, 40_000)));
        assert!(!watch.is_due(used(9_200, 40_100)), "it has been");
        assert!(watch.is_due(used(9_300, 50_000)), "as much again, bit by bit");
    }
}
