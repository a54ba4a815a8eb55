//! How much work there is for each worker: the figure by which a fleet grows and shrinks.
//!
//! Not the length of the queue: a hundred calls of a millisecond need nobody, five of a minute do. It is the time in which the fleet as
//! it is would have done what runs and waits now, in seconds: at 1 it has just enough to do.

use std::time::Duration;

/// One live worker's part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// Running and waiting there.
    pub calls: u64,
    /// Calls that it may run at once; 0 where it takes no new ones.
    pub slots: u64,
    /// How long a handler ran there of late; zero: not known.
    pub mean: Duration,
}

/// What is known of a fleet at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Jobs in the queue that nobody has taken, those whose delay is not over included.
    pub queued: u64,
    /// Calls running and waiting at workers.
    pub in_flight: u64,
    /// How long one takes, over all functions.
    pub mean: Duration,
    /// Calls that the live workers may run at once, together.
    pub slots: u64,
}

impl Work {
    /// What live workers and the queue have to do. The mean is weighed by what each of them has.
    pub fn of(parts: &[Part], queued: u64) -> Self {
        let known = || parts.iter().filter(|part| !part.mean.is_zero());
        let weight: f64 = known().map(|part| part.calls.max(1) as f64).sum();
        let weighed: f64 = known().map(|part| part.mean.as_secs_f64() * part.calls.max(1) as f64).sum();
        Self {
            queued,
            in_flight: parts.iter().map(|part| part.calls).sum(),
            mean: if weight > 0.0 { Duration::from_secs_f64(weighed / weight) } else { Duration::ZERO },
            slots: parts.iter().map(|part| part.slots).sum(),
        }
    }

    /// See the module. Without any worker it is as if there were one that does one call at a time.
    pub fn per_worker(&self) -> f64 {
        let calls = self.queued.saturating_add(self.in_flight) as f64;
        // Work that nothing is known of must not look like none.
        let mean = if self.mean.is_zero() { UNKNOWN_MEAN } else { self.mean };
        calls * mean.as_secs_f64() / self.slots.max(1) as f64
    }
}

/// Until a call has been measured.
const UNKNOWN_MEAN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(mean_ms: u64) -> Part {
        Part { calls: 0, slots: 4, mean: Duration::from_millis(mean_ms) }
    }

    #[test]
    fn a_hundred_fast_tasks_need_nobody_and_five_heavy_ones_do() {
        let fast = Work::of(&[idle(2), idle(2)], 100).per_worker();
        let heavy = Work::of(&[idle(60_000), idle(60_000)], 5).per_worker();
        assert!(fast < 0.1, "{fast}");
        assert!(heavy > 10.0, "{heavy}");
    }

    #[test]
    fn work_without_workers_asks_for_some_and_no_work_for_none() {
        assert!(Work::of(&[], 50).per_worker() > 1.0);
        assert_eq!(Work::of(&[], 0).per_worker(), 0.0);
        assert_eq!(Work::of(&[idle(0)], 0).per_worker(), 0.0);
    }

    #[test]
    fn who_drains_offers_no_place_and_has_work_all_the_same() {
        let second = Duration::from_secs(1);
        let (busy, drains) = (Part { calls: 4, slots: 4, mean: second }, Part { calls: 4, slots: 0, mean: second });
        let work = Work::of(&[busy, drains, idle(0)], 8);
        assert_eq!(work, Work { queued: 8, in_flight: 8, mean: second, slots: 8 });
        assert!((work.per_worker() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_busy_worker_s_calls_weigh_more_in_the_mean() {
        let busy = Part { calls: 9, slots: 4, mean: Duration::from_millis(100) };
        assert_eq!(Work::of(&[busy, idle(1100)], 0).mean, Duration::from_millis(200));
    }
}
