//! The pace of a version: how many of its calls run at once where the processors have nothing left to give.
//!
//! Beyond what keeps the processors busy, one more call at once only makes all of them take longer. So a version that is a major part
//! of what keeps them busy gets another sandbox only when a look at the machine, later than its last one came, found them idle at times;
//! and where it has too many already, it is tried whether fewer do as well: some of its calls run one after the other instead of all at
//! once, and that stays only if as many are completed. Calls that mostly sleep fail the trial and get their sandboxes back. A wrong
//! trial costs a fifth of one version's calls, at most half, for one window.

use std::time::Duration;

use super::slab::Slot;
use super::worth::{MILLION, PER_CPU};
use super::{Pool, VersionPool};

/// With so little idle, the processors have nothing left to give: who waits for an answer and who writes it take turns, so that none is ever
/// busy all the time. (Of a thousand; what is between the two bounds changes nothing.)
const SATURATED: u16 = 120;
/// With so much, they have.
const IDLE: u16 = 180;
/// With so much, nothing needs to be held back.
const PLENTY: u16 = 400;
/// What a trial is judged by.
const WINDOW: Duration = Duration::from_millis(400);
/// Of calls running at once, a trial takes one part in so many; of very many, half.
const TRIAL_PART: usize = 5;
/// Very many are so many times those that are always worth it.
const VERY_MANY: usize = 4;
/// Of the calls completed before it, in percent, what a trial has to reach.
const AS_MANY: u64 = 93;
/// A line that has lasted for so long is no burst.
const STANDING: Duration = Duration::from_secs(1);
/// After a trial that failed, doubled each time.
const REST_FIRST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(320);

/// What was last found of the processors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Which look it was.
    number: u64,
    /// Of a thousand.
    idle: u16,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    /// Calls a second before it.
    rate: u64,
    /// The bound before it.
    most: Option<usize>,
}

/// One version's pace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// So many of its calls may run at once.
    most: Option<usize>,
    /// Calls that ended in the window, and the most that ran at once.
    done: u64,
    running: usize,
    since: Duration,
    trial: Option<Trial>,
    rest_until: Duration,
    rest: Duration,
    /// The look that allowed it sandboxes, and how many it got on it.
    look: u64,
    grown: usize,
    /// Calls a second in the last whole window, while callers waited all along.
    rate: Option<u64>,
    /// Processors that its calls of the last whole window kept busy, in millionths.
    used_ppm: Option<u64>,
}

impl Pace {
    pub(super) fn used_ppm(&self) -> Option<u64> {
        self.used_ppm
    }

    fn begin(&mut self, now: Duration) {
        (self.done, self.running, self.since) = (0, 0, now);
    }

    /// The trial was wrong, or can't be judged.
    fn take_back(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.most = trial.most;
        }
    }
}

impl VersionPool {
    /// Whether its pace allows one more of its calls.
    pub(super) fn may_run(&self) -> bool {
        self.pace.most.is_none_or(|most| self.busy < most)
    }
}

impl Pool {
    /// What the machine said of its processors since the last look; of a thousand, how much they were idle.
    pub(super) fn look(&mut self, idle: u16) {
        let number = self.processors.map_or(0, |look| look.number) + 1;
        self.processors = Some(Look { number, idle });
    }

    /// A call has ended: once in a window, the pace is set anew. Before the call's end is settled.
    pub(super) fn keep_pace(&mut self, slot: Slot) {
        let now = self.now;
        let version = &mut self.versions[slot];
        version.pace.done += 1;
        version.pace.running = version.pace.running.max(version.busy + 1);
        let took = now.saturating_sub(version.pace.since);
        if took >= WINDOW {
            self.set_pace(slot, took);
            self.versions[slot].pace.begin(now);
        }
    }

    fn set_pace(&mut self, slot: Slot, took: Duration) {
        let Some(look) = self.processors else { return };
        let used_ppm =
            self.versions[slot].pace.done.saturating_mul(self.versions[slot].history.used_us()).saturating_mul(MILLION)
                / (took.as_micros() as u64).max(1);
        self.versions[slot].pace.used_ppm = Some(used_ppm).filter(|_| took < 2 * WINDOW);
        let (now, least) = (self.now, self.always_worth(&self.versions[slot]));
        let is_major = self.is_major(&self.versions[slot]);
        let version = &mut self.versions[slot];
        // Somebody waited all along; else the rate says what was asked for, not what can be had.
        let lined = !version.waiters.is_empty() && version.history.line_since() <= version.pace.since;
        let pace = &mut version.pace;
        let rate = pace.done.saturating_mul(1_000_000) / (took.as_micros() as u64).max(1);
        pace.rate = lined.then_some(rate).filter(|_| took < 2 * WINDOW);
        if took >= 2 * WINDOW || look.idle >= PLENTY {
            pace.take_back();
            if look.idle >= PLENTY {
                pace.most = None;
            }
            return;
        }
        if let Some(trial) = pace.trial.take() {
            if rate * 100 < trial.rate * AS_MANY {
                pace.most = trial.most;
                pace.rest = (pace.rest * 2).clamp(REST_FIRST, REST_MAX);
                pace.rest_until = now + pace.rest;
                return;
            }
            pace.rest = Duration::ZERO;
        }
        let running = pace.most.unwrap_or(usize::MAX).min(pace.running);
        if look.idle < SATURATED && is_major && running > least && pace.rest_until <= now {
            pace.trial = Some(Trial { rate, most: pace.most });
            let part = if running > VERY_MANY * least { 2 } else { TRIAL_PART };
            pace.most = Some((running - running.div_ceil(part)).max(least));
        } else if look.idle >= IDLE
            && let Some(most) = pace.most
        {
            pace.most = Some(most + most.div_ceil(TRIAL_PART));
        }
    }

    /// So many of its calls at once are worth it however busy the processors are. Where they are busy, of those that are worth it on the
    /// machine its part, at least one; else all.
    pub(super) fn always_worth(&self, version: &VersionPool) -> usize {
        let all = PER_CPU * self.settings.cpus;
        let busy = self.processors.is_some_and(|look| look.idle < IDLE);
        let Some(used_ppm) = version.pace.used_ppm.filter(|_| busy) else { return all };
        let part = (used_ppm.saturating_mul(PER_CPU as u64) + MILLION / 2) / MILLION;
        usize::try_from(part).unwrap_or(all).clamp(1, all)
    }

    /// Its line stands still: nothing is held back any more.
    pub(super) fn lift_pace(&mut self, slot: Slot) {
        let pace = &mut self.versions[slot].pace;
        (pace.most, pace.trial) = (None, None);
    }

    /// Whether the machine was seen to have something left for one more sandbox of this version: half as many again on one look.
    /// Before the first look, what its calls seem to need is counted up.
    pub(super) fn may_grow(&self, version: &VersionPool) -> bool {
        let Some(look) = self.processors else { return !self.is_crowded(version) };
        if !self.is_major(version) {
            return true;
        }
        let serving = version.busy + version.coming;
        let grown = if version.pace.look == look.number { version.pace.grown } else { 0 };
        look.idle >= IDLE && grown * 2 < serving
    }

    /// Whether a newcomer would wait for longer in this version's line than anybody is to, although it has lasted and nothing is coming.
    pub(super) fn is_overloaded(&self, version: &VersionPool) -> bool {
        let Some(rate) = version.pace.rate.filter(|rate| *rate > 0 && version.coming == 0) else { return false };
        let lasts = !version.waiters.is_empty() && version.history.line_since() + STANDING <= self.now;
        let wait = Duration::from_micros((version.waiters.len() as u64 + 1) * 1_000_000 / rate);
        lasts && wait > self.settings.queue_wait_max.saturating_add(version.history.hold())
    }

    /// One more was ordered.
    pub(super) fn note_growth(&mut self, slot: Slot) {
        let number = self.processors.map_or(0, |look| look.number);
        let pace = &mut self.versions[slot].pace;
        if pace.look != number {
            (pace.look, pace.grown) = (number, 0);
        }
        pace.grown += 1;
    }
}
