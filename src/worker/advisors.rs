//! What the last calls of each version say about its memory. Bounded: a version that was not called here for long begins anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::function::Version;
use crate::domain::ids::VersionKey;
use crate::domain::limits::Limits;
use crate::domain::outcome::{ErrorType, Outcome, Status};
use crate::domain::policy::advice::{Advice, Advised, Used};
use crate::domain::policy::learned::VersionCalls;

/// Versions looked after, some 800 bytes each.
const VERSIONS_MAX: usize = 4096;

/// One version's; each of its sandboxes has a hand on it.
pub(super) struct Advisor {
    memory_mb: u32,
    /// Its owner wants it resized without being asked.
    auto_memory: bool,
    limits: Arc<Limits>,
    advised: Mutex<Advised>,
    /// Calls noted when they were last named as changed.
    named_at: AtomicU64,
}

impl Advisor {
    /// After a call that ran: what is to be said by now. A lock that few share, for the time of a few writes.
    pub fn note(&self, used: &Used) -> Option<Arc<Advice>> {
        let mut advised = self.lock();
        advised.note(used, self.memory_mb, &self.limits);
        advised.advice().cloned()
    }

    /// The last calls, where there were some since this was last asked.
    fn changed(&self, version: VersionKey) -> Option<VersionCalls> {
        let advised = self.lock();
        let noted = advised.last().noted();
        // Only `take_changed` asks, one at a time.
        if self.named_at.swap(noted, Ordering::Relaxed) == noted {
            return None;
        }
        let last = advised.last().clone();
        Some(VersionCalls { version, memory_mb: self.memory_mb, auto_memory: self.auto_memory, last })
    }

    fn lock(&self) -> MutexGuard<'_, Advised> {
        // Numbers only: half a note is a wrong number, gone after the next calls.
        self.advised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct Advisors {
    limits: Arc<Limits>,
    by_version: Mutex<HashMap<VersionKey, Arc<Advisor>>>,
}

impl Advisors {
    pub fn new(limits: Limits) -> Self {
        Self { limits: Arc::new(limits), by_version: Mutex::default() }
    }

    /// Once per sandbox. `None`: as many are looked after as may be, and all have sandboxes.
    pub fn of(&self, version: &Version) -> Option<Arc<Advisor>> {
        let mut all = self.lock();
        if let Some(advisor) = all.get(&version.key()) {
            return Some(advisor.clone());
        }
        if all.len() >= VERSIONS_MAX {
            all.retain(|_, advisor| Arc::strong_count(advisor) > 1);
        }
        if all.len() >= VERSIONS_MAX {
            return None;
        }
        let advisor = Arc::new(Advisor {
            memory_mb: version.memory_mb,
            auto_memory: version.auto_memory,
            limits: self.limits.clone(),
            advised: Mutex::default(),
            named_at: AtomicU64::new(0),
        });
        all.insert(version.key(), advisor.clone());
        Some(advisor)
    }

    /// What an earlier process noted of a version. Nothing, where it is looked after already or there is no place.
    pub fn recall(&self, calls: VersionCalls) {
        let VersionCalls { version, memory_mb, auto_memory, last } = calls;
        let mut all = self.lock();
        if all.len() >= VERSIONS_MAX || all.contains_key(&version) {
            return;
        }
        let named_at = AtomicU64::new(last.noted());
        let advised = Mutex::new(Advised::recalled(last, memory_mb, &self.limits));
        let limits = self.limits.clone();
        all.insert(version, Arc::new(Advisor { memory_mb, auto_memory, limits, advised, named_at }));
    }

    /// Up to `max` versions with their last calls, each once after it was called.
    pub fn take_changed(&self, max: usize) -> Vec<VersionCalls> {
        let all: Vec<_> = self.lock().iter().map(|(key, advisor)| (*key, advisor.clone())).collect();
        all.iter().filter_map(|(key, advisor)| advisor.changed(*key)).take(max).collect()
    }

    pub fn advice(&self, version: VersionKey) -> Option<Arc<Advice>> {
        let advisor = self.lock().get(&version).cloned()?;
        advisor.lock().advice().cloned()
    }

    /// Versions to be resized by themselves, and to how much.
    pub fn resizes(&self) -> Vec<(VersionKey, u32)> {
        let all = self.lock();
        let auto = all.iter().filter(|(_, advisor)| advisor.auto_memory);
        auto.filter_map(|(key, advisor)| Some((*key, advisor.lock().stable_memory_mb()?))).collect()
    }

    /// The version is over.
    pub fn retire(&self, version: VersionKey) {
        self.lock().remove(&version);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VersionKey, Arc<Advisor>>> {
        // Every change is one step.
        self.by_version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call used, by its outcome; `wall` where the runtime did not say how long the handler ran.
pub(super) fn used(outcome: &Outcome, wall: std::time::Duration) -> Used {
    let micros = std::time::Duration::from_micros;
    let died_of = outcome.failure.as_ref().map(|failure| failure.error_type);
    Used {
        peak_memory_bytes: outcome.usage.peak_memory_bytes,
        wall: if outcome.timings.handler_us > 0 { micros(outcome.timings.handler_us) } else { wall },
        cpu: micros(outcome.usage.cpu_us),
        throttled: micros(outcome.usage.throttled_us),
        out_of_memory: died_of == Some(ErrorType::OutOfMemory),
        timed_out: outcome.status == Status::Timeout,
    }
}
