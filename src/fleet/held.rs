//! Claims that a controller has in hand: what workers let it keep after a call, and what it took and did not need after all. A call that
//! finds one here asks nobody but its worker.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::ids::{VersionKey, WorkerId};

use super::HELD_FOR;

/// Versions with claims at once; beyond it nothing more is kept.
const VERSIONS_MAX: usize = 16_384;
/// Claims on one version's sandboxes.
const PER_VERSION_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<VersionKey, Vec<(WorkerId, Duration)>>>);

impl Held {
    pub fn keep(&self, version: VersionKey, worker: WorkerId, now: Duration) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= VERSIONS_MAX {
            held.retain(|_, claims| claims.iter().any(|(_, at)| is_fresh(*at, now)));
            if held.len() >= VERSIONS_MAX {
                return;
            }
        }
        let claims = held.entry(version).or_default();
        if claims.len() >= PER_VERSION_MAX {
            claims.retain(|(_, at)| is_fresh(*at, now));
        }
        if claims.len() < PER_VERSION_MAX {
            claims.push((worker, now));
        }
    }

    /// The newest, so that the surplus lapses.
    pub fn take(&self, version: VersionKey, now: Duration) -> Option<WorkerId> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = held.get_mut(&version)?;
        let newest = claims.pop().filter(|(_, at)| is_fresh(*at, now));
        if newest.is_none() || claims.is_empty() {
            // Those below are older still.
            held.remove(&version);
        }
        newest.map(|(worker, _)| worker)
    }

    /// Nothing of this worker's is worth anything any more.
    pub fn forget(&self, worker: WorkerId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, claims| {
            claims.retain(|(of, _)| *of != worker);
            !claims.is_empty()
        });
    }
}

fn is_fresh(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) < HELD_FOR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FunctionId;
    use uuid::Uuid;

    #[test]
    fn the_newest_comes_first_and_old_ones_never() {
        let (held, worker) = (Held::default(), |n| WorkerId(Uuid::from_u128(n)));
        let version = VersionKey { function: FunctionId(Uuid::from_u128(1)), number: 1 };
        let at = Duration::from_millis;
        held.keep(version, worker(1), at(0));
        held.keep(version, worker(2), at(200));
        held.keep(version, worker(3), at(250));
        held.forget(worker(3));
        assert_eq!(held.take(version, at(400)), Some(worker(2)));
        assert_eq!(held.take(version, at(400)), None, "the first was kept for too long");
        assert!(held.0.lock().unwrap().is_empty());
    }
}
