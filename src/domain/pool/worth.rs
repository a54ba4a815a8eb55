//! Whether one more sandbox pays. Estimates from the pool's own events, each O(1); no rule here can leave a waiter behind: a
//! line that stands still for longer than they explain gets a sandbox whatever they say.
//!
//! One more pays if the newest waiter would wait longer for those that are there or coming than for a new one:
//! `⌈waiting ÷ (busy + coming)⌉ × hold > cost`. A line that lasts gets more, one at a time: what its waiters lost together would
//! have paid for it long ago. Neither holds where the processors leave nothing to gain: calls that keep them busy already
//! would only hold their sandboxes for longer if there were more of these.

use std::time::Duration;

use crate::domain::function::Runtime;

use super::slab::Slot;
use super::{Pool, RUNTIMES, VersionPool};

/// A new measurement counts for one part in so many.
const WEIGHT: u32 = 8;
/// What starting a generic sandbox and specialising it take, by `Runtime as usize`, before either was measured.
const PRIORS: [(Duration, Duration); RUNTIMES] = {
    let mut priors = [(Duration::from_millis(5), Duration::from_millis(3)); RUNTIMES];
    priors[Runtime::Python as usize].0 = Duration::from_millis(40);
    priors[Runtime::Nodejs as usize] = (Duration::from_millis(65), Duration::from_millis(5));
    priors
};
/// Processor time of the node itself for one call, generously: it bounds calls that hardly compute.
const CALL_OVERHEAD: Duration = Duration::from_micros(150);
/// So many sandboxes per processor are always worth it: some run while the answers of others are on their way.
pub(super) const PER_CPU: usize = 2;
/// What a lasting line must cost its newest waiter to count.
const NOTICEABLE: Duration = Duration::from_millis(1);
/// A version that takes less than one part in so many of the processors is not what keeps them busy.
const MINOR_PART: u64 = 32;
/// A line is stuck when it stands still for so many times what should move it.
const PATIENCE: u32 = 4;
/// Of what a creation costs, what counts for patience: a sandbox that is slow to make is no reason not to notice.
const PATIENT_COST_MAX: Duration = Duration::from_millis(250);
/// Between two looks at one line, at least.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(super) const MILLION: u64 = 1_000_000;
/// More processors than one call can keep busy.
const SHARE_PPM_MAX: u64 = 1024 * MILLION;

/// A moving mean of durations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean(Option<Duration>);

impl Mean {
    fn note(&mut self, sample: Duration) {
        self.0 = Some(match self.0 {
            Some(mean) => (mean * (WEIGHT - 1) + sample) / WEIGHT,
            None => sample,
        });
    }
}

/// What a version's calls and creations were like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    /// How long a call keeps its sandbox.
    hold: Mean,
    /// Processor time of a call.
    cpu: Mean,
    specialise: Mean,
    /// Its last call that ended; or when its line began, if that was later.
    moved_at: Duration,
    /// When its line began; one that was gone for less than a creation takes counts as the same.
    line_since: Duration,
    pub line_ended: Duration,
    /// Processors that one call keeps busy, in millionths; 0 before the first call ended.
    share_ppm: u64,
    /// What its calls that run now count with in `Taken::processors_ppm`.
    processors_ppm: u64,
}

impl History {
    /// When its line began.
    pub fn line_since(&self) -> Duration {
        self.line_since
    }

    /// How long a call keeps its sandbox.
    pub fn hold(&self) -> Duration {
        self.hold.0.unwrap_or_default()
    }

    fn note_call(&mut self, hold: Duration, cpu: Duration, now: Duration) {
        self.hold.note(hold);
        self.cpu.note(cpu);
        self.moved_at = now;
        let micros = |mean: Mean| mean.0.unwrap_or_default().as_micros() as u64;
        self.share_ppm = self.used_us().saturating_mul(MILLION) / micros(self.hold).max(1);
        self.share_ppm = self.share_ppm.min(SHARE_PPM_MAX);
    }

    /// What a call takes of a processor, the node's own work for it included.
    pub fn used_us(&self) -> u64 {
        (self.cpu.0.unwrap_or_default() + CALL_OVERHEAD).as_micros() as u64
    }
}

impl Pool {
    /// A call on this sandbox is over.
    pub(super) fn note_call(&mut self, sandbox: Slot, version: Slot, cpu: Option<Duration>) {
        if let Some(cpu) = cpu {
            let hold = self.now.saturating_sub(self.sandboxes[sandbox].since);
            self.versions[version].history.note_call(hold, cpu, self.now);
        }
        self.count_processors(version);
    }

    pub(super) fn note_start(&mut self, sandbox: Slot) {
        let sandbox = &self.sandboxes[sandbox];
        self.runtimes[sandbox.runtime as usize].start.note(self.now.saturating_sub(sandbox.since));
    }

    pub(super) fn note_specialise(&mut self, sandbox: Slot, version: Slot) {
        let took = self.now.saturating_sub(self.sandboxes[sandbox].since);
        self.versions[version].history.specialise.note(took);
    }

    /// After the number of a version's calls, or what is known of them, changed.
    pub(super) fn count_processors(&mut self, version: Slot) {
        let version = &mut self.versions[version];
        let ppm = version.busy as u64 * version.history.share_ppm;
        let before = std::mem::replace(&mut version.history.processors_ppm, ppm);
        self.taken.processors_ppm = self.taken.processors_ppm - before + ppm;
    }

    /// A first waiter is about to join.
    pub(super) fn begin_line(&mut self, version: Slot) {
        let same_until = self.versions[version].history.line_ended + self.cost(&self.versions[version]);
        let history = &mut self.versions[version].history;
        if same_until < self.now {
            history.line_since = self.now;
        }
        history.moved_at = self.now;
    }

    /// Whether one more sandbox of a version with waiters shortens anybody's wait.
    pub(super) fn pays(&self, version: &VersionPool) -> bool {
        if !version.idle.is_empty() {
            // What its waiters lack is a call to spare, not a sandbox.
            return false;
        }
        let serving = version.busy + version.coming;
        let Some(hold) = version.history.hold.0.filter(|_| serving > 0) else { return true };
        if self.stuck_at(version, hold) <= self.now {
            // At most twice as many each time: a hiccup of the machine looks the same.
            return version.coming < version.busy.max(1);
        }
        let rounds = version.waiters.len().div_ceil(serving);
        let wait = hold.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        let cost = self.cost(version);
        let lasts = version.coming == 0 && version.history.line_since + cost <= self.now;
        if serving < self.always_worth(version) {
            return lasts || wait > cost;
        }
        (wait > cost || lasts && wait >= NOTICEABLE) && self.may_grow(version)
    }

    /// What making one more takes, for one that is ordered now.
    pub(super) fn cost(&self, version: &VersionPool) -> Duration {
        let runtime = version.version.runtime as usize;
        let specialise = version.history.specialise.0.unwrap_or(PRIORS[runtime].1);
        if !self.runtimes[runtime].ready.is_empty() {
            return specialise;
        }
        specialise + self.runtimes[runtime].start.0.unwrap_or(PRIORS[runtime].0)
    }

    /// Whether the processors seem to have nothing left to give, once its coming sandboxes are there, and this version's calls are
    /// among those that take it.
    pub(super) fn is_crowded(&self, version: &VersionPool) -> bool {
        let coming_ppm = version.coming as u64 * version.history.share_ppm;
        self.taken.processors_ppm + coming_ppm >= self.settings.cpus as u64 * MILLION && self.is_major(version)
    }

    /// Whether it is a part of what keeps the processors busy that is worth a thought.
    pub(super) fn is_major(&self, version: &VersionPool) -> bool {
        let coming_ppm = version.coming as u64 * version.history.share_ppm;
        let ppm = version.pace.used_ppm().unwrap_or(0).max(version.history.processors_ppm + coming_ppm);
        ppm >= self.settings.cpus as u64 * MILLION / MINOR_PART
    }

    fn is_stuck(&self, version: &VersionPool) -> bool {
        self.stuck_at(version, version.history.hold()) <= self.now
    }

    /// From when a line that has not moved meanwhile is stuck.
    fn stuck_at(&self, version: &VersionPool, hold: Duration) -> Duration {
        let usual = hold.max(self.cost(version).min(PATIENT_COST_MAX));
        version.history.moved_at + usual.saturating_mul(PATIENCE)
    }

    /// Has a version looked at again when its line would be stuck. Once it is watched, a line that moves costs nothing.
    pub(super) fn watch(&mut self, slot: Slot) {
        let version = &self.versions[slot];
        if version.watched_at.is_some() {
            return;
        }
        let stuck_at = self.stuck_at(version, version.history.hold.0.unwrap_or_default());
        let at = stuck_at.max(self.now + LOOK_AGAIN);
        self.versions[slot].watched_at = Some(at);
        self.watched.insert((at, slot));
    }

    pub(super) fn unwatch(&mut self, slot: Slot) {
        if let Some(at) = self.versions[slot].watched_at.take() {
            self.watched.remove(&(at, slot));
        }
    }

    /// When a line is to be looked at again.
    pub fn next_watch(&self) -> Option<Duration> {
        self.watched.first().map(|(at, _)| *at)
    }

    /// Lines whose time has come are wanting now, or watched again, or over.
    pub(super) fn look_again(&mut self) {
        while let Some(&(at, slot)) = self.watched.first()
            && at <= self.now
        {
            self.unwatch(slot);
            if self.is_stuck(&self.versions[slot]) {
                self.lift_pace(slot);
            }
            self.reindex(slot);
        }
    }
}
