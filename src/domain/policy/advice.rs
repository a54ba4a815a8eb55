//! How much memory a version should be given, from what its last calls used; never from one call.
//!
//! Memory is what a caller chooses, and the processor's share follows it. So there are four things to say: it has far more than it uses,
//! it is about to run out, its processor share holds it up, or it waits for others and neither matters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::limits::Limits;

/// Calls looked back on: enough for a tail, few enough to see a change within minutes.
const LAST: usize = 32;
/// Fewer say nothing.
const CALLS_MIN: usize = 20;
/// Calls between two looks: what a look costs is spread over them.
const LOOK_EVERY: u64 = 16;
/// Calls between two wordings of what stays the same.
const REWORD_EVERY: u64 = 64 * LOOK_EVERY;
/// Looks in a row that must agree before a version is resized by itself.
const STABLE_LOOKS: u32 = 4;
/// Recommendations are multiples of this.
const STEP_MB: u64 = 32;
/// Above the highest peak seen: a quarter more.
const HEADROOM_PERCENT: u64 = 125;
/// A peak above this part of what it has is a risk.
const RISK_PERCENT: u64 = 90;
/// Out of memory, it is given this much of what it had.
const OUT_OF_MEMORY_PERCENT: u64 = 200;
/// Less than this part of what it has is worth a change.
const WASTE_PERCENT: u64 = 75;
/// Throttled for this part of its time, its processor share holds it up.
const THROTTLED_PERCENT: u64 = 10;
/// So much memory is one processor, as on Lambda: more does not make one thread faster.
const ONE_PROCESSOR_MB: u64 = 1769;
/// Computing for less than this part of its time, it waits.
const WAITING_PERCENT: u64 = 10;
/// Shorter calls neither wait nor compute to speak of.
const LONG: Duration = Duration::from_millis(100);

/// What one call used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub peak_memory_bytes: u64,
    /// In the handler.
    pub wall: Duration,
    pub cpu: Duration,
    pub throttled: Duration,
    pub out_of_memory: bool,
    pub timed_out: bool,
}

/// The same, small: durations are cut at 71 minutes, which no call reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32, u32, u8)", into = "(u32, u32, u32, u32, u8)")]
pub(super) struct Call {
    peak_kib: u32,
    wall_us: u32,
    cpu_us: u32,
    throttled_us: u32,
    out_of_memory: bool,
    timed_out: bool,
}

impl From<Call> for (u32, u32, u32, u32, u8) {
    fn from(call: Call) -> Self {
        let ends = u8::from(call.out_of_memory) | u8::from(call.timed_out) << 1;
        (call.peak_kib, call.wall_us, call.cpu_us, call.throttled_us, ends)
    }
}

impl From<(u32, u32, u32, u32, u8)> for Call {
    fn from((peak_kib, wall_us, cpu_us, throttled_us, ends): (u32, u32, u32, u32, u8)) -> Self {
        Self { peak_kib, wall_us, cpu_us, throttled_us, out_of_memory: ends & 1 != 0, timed_out: ends & 2 != 0 }
    }
}

/// The last calls of one version. Bounded: 700 bytes.
#[derive(Clone, Debug)]
pub struct LastCalls {
    calls: [Call; LAST],
    noted: u64,
}

impl Default for LastCalls {
    fn default() -> Self {
        Self { calls: [Call::default(); LAST], noted: 0 }
    }
}

/// What to change, or to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// It has far more memory than it uses.
    Waste,
    /// It ran out of memory, or nearly.
    MemoryRisk,
    /// It is throttled: more memory is more processor.
    CpuBound,
    /// It waits for others: memory and processor change nothing.
    Waiting,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advice {
    pub recommended_memory_mb: u32,
    pub reason: Reason,
    /// A sentence for the function's owner.
    pub tip: Arc<str>,
    /// Memory-time that the recommendation saves, in words; `None`: it costs more, or changes nothing.
    pub estimated_savings: Option<Arc<str>>,
    /// The same as a number: GB·s in a thousand calls like the last ones, negative where it costs more.
    pub saved_gb_s_per_thousand_calls: f64,
    /// Calls that this is drawn from.
    pub calls: u32,
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl LastCalls {
    /// O(1), without allocation.
    pub fn note(&mut self, used: &Used) {
        let place = (self.noted % LAST as u64) as usize;
        self.calls[place] = Call {
            peak_kib: u32::try_from(used.peak_memory_bytes / 1024).unwrap_or(u32::MAX),
            wall_us: micros(used.wall),
            cpu_us: micros(used.cpu),
            throttled_us: micros(used.throttled),
            out_of_memory: used.out_of_memory,
            timed_out: used.timed_out,
        };
        self.noted += 1;
    }

    pub(super) fn oldest_first(&self) -> Vec<Call> {
        let last = self.last();
        // Where the next one goes is the oldest, once all places are taken.
        let (newer, older) = last.split_at((self.noted % LAST as u64) as usize % last.len().max(1));
        [older, newer].concat()
    }

    /// `None`: more than are ever kept.
    pub(super) fn of(oldest_first: &[Call]) -> Option<Self> {
        let mut last = Self::default();
        last.calls.get_mut(..oldest_first.len())?.copy_from_slice(oldest_first);
        last.noted = oldest_first.len() as u64;
        Some(last)
    }

    /// How many were ever noted here.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    fn last(&self) -> &[Call] {
        let known = usize::try_from(self.noted).unwrap_or(LAST).min(LAST);
        &self.calls[..known]
    }

    /// For a version that has so much memory; `None`: too few calls, or all is well.
    pub fn advice(&self, memory_mb: u32, limits: &Limits) -> Option<Advice> {
        self.conclude(memory_mb, limits).map(|(look, reason, recommended)| look.advice(reason, recommended))
    }

    /// The same without its words, and so without allocation.
    fn conclude(&self, memory_mb: u32, limits: &Limits) -> Option<(Look, Reason, u32)> {
        let last = self.last();
        if last.len() < CALLS_MIN {
            return None;
        }
        let look = Look::at(last, memory_mb);
        let (reason, wanted_mb) = look.verdict()?;
        let least = u64::from(limits.memory_mb_min);
        let wanted_mb = wanted_mb.next_multiple_of(STEP_MB).clamp(least, u64::from(limits.memory_mb_max));
        let recommended = match reason {
            // The memory stays as it is.
            Reason::Waiting => memory_mb,
            _ => u32::try_from(wanted_mb).unwrap_or(memory_mb),
        };
        is_a_change(reason, recommended, memory_mb).then_some((look, reason, recommended))
    }
}

/// Whether, after clamping and rounding, the recommendation still goes the way its reason wants.
fn is_a_change(reason: Reason, recommended: u32, memory_mb: u32) -> bool {
    match reason {
        Reason::Waste => recommended < memory_mb,
        Reason::MemoryRisk | Reason::CpuBound => recommended > memory_mb,
        Reason::Waiting => true,
    }
}

/// The last calls at a glance.
struct Look {
    calls: u32,
    memory_mb: u64,
    peak_mb: u64,
    wall_us: u64,
    cpu_us: u64,
    throttled_us: u64,
    out_of_memory: usize,
    timed_out: usize,
}

impl Look {
    fn at(last: &[Call], memory_mb: u32) -> Self {
        let sum = |of: fn(&Call) -> u32| last.iter().map(|call| u64::from(of(call))).sum();
        Self {
            calls: last.len() as u32,
            memory_mb: memory_mb.into(),
            peak_mb: last.iter().map(|call| u64::from(call.peak_kib)).max().unwrap_or(0).div_ceil(1024),
            wall_us: sum(|call| call.wall_us),
            cpu_us: sum(|call| call.cpu_us),
            throttled_us: sum(|call| call.throttled_us),
            out_of_memory: last.iter().filter(|call| call.out_of_memory).count(),
            timed_out: last.iter().filter(|call| call.timed_out).count(),
        }
    }

    fn of_wall(&self, part_us: u64) -> u64 {
        part_us * 100 / self.wall_us.max(1)
    }

    fn is_long(&self) -> bool {
        u128::from(self.wall_us) >= LONG.as_micros() * u128::from(self.calls)
    }

    /// What to say, and with how much memory.
    fn verdict(&self) -> Option<(Reason, u64)> {
        let needed_mb = self.peak_mb * HEADROOM_PERCENT / 100;
        if self.out_of_memory > 0 {
            return Some((Reason::MemoryRisk, needed_mb.max(self.memory_mb * OUT_OF_MEMORY_PERCENT / 100)));
        }
        if self.peak_mb * 100 >= self.memory_mb * RISK_PERCENT {
            return Some((Reason::MemoryRisk, needed_mb));
        }
        if self.of_wall(self.throttled_us) >= THROTTLED_PERCENT && self.memory_mb < ONE_PROCESSOR_MB {
            let unhindered_us = self.wall_us.saturating_sub(self.throttled_us).max(1);
            // At most twice as much at a time: what is throttled in bursts needs less than the ratio says.
            let share_mb = (self.memory_mb * self.wall_us / unhindered_us).min(2 * self.memory_mb);
            return Some((Reason::CpuBound, share_mb.min(ONE_PROCESSOR_MB)));
        }
        if self.peak_mb > 0 && needed_mb.next_multiple_of(STEP_MB) * 100 <= self.memory_mb * WASTE_PERCENT {
            return Some((Reason::Waste, needed_mb));
        }
        let waits = self.is_long() && self.of_wall(self.cpu_us) < WAITING_PERCENT;
        waits.then_some((Reason::Waiting, self.memory_mb))
    }

    fn advice(&self, reason: Reason, recommended: u32) -> Advice {
        let less_mb = self.memory_mb as f64 - f64::from(recommended);
        let mean_s = self.wall_us as f64 / 1e6 / f64::from(self.calls);
        let saved = less_mb / 1024.0 * mean_s * 1000.0;
        let percent = less_mb * 100.0 / self.memory_mb as f64;
        let words = format!("{} GB·s in a thousand calls, {percent:.0} % of their memory-time", Rounded(saved));
        Advice {
            recommended_memory_mb: recommended,
            reason,
            tip: self.tip(reason, recommended).into(),
            estimated_savings: (saved > 0.0).then(|| words.into()),
            saved_gb_s_per_thousand_calls: saved,
            calls: self.calls,
        }
    }

    fn tip(&self, reason: Reason, recommended: u32) -> String {
        let Self { calls, memory_mb, peak_mb, out_of_memory, timed_out, .. } = self;
        match reason {
            Reason::Waste => {
                format!("the last {calls} calls used at most {peak_mb} of {memory_mb} MB: {recommended} MB would do")
            }
            Reason::MemoryRisk if *out_of_memory > 0 => format!(
                "{out_of_memory} of the last {calls} calls ran out of their {memory_mb} MB: give it {recommended} MB"
            ),
            Reason::MemoryRisk => format!(
                "the last {calls} calls used up to {peak_mb} of {memory_mb} MB: give it {recommended} MB before one runs out"
            ),
            Reason::CpuBound => format!(
                "the last {calls} calls were throttled for {} % of their time: {recommended} MB come with more processor",
                self.of_wall(self.throttled_us)
            ),
            Reason::Waiting if *timed_out > 0 => format!(
                "{timed_out} of the last {calls} calls timed out while they waited, computing for {} % of their time: more \
                 memory would not help, what they wait for would",
                self.of_wall(self.cpu_us)
            ),
            Reason::Waiting => format!(
                "the last {calls} calls computed for {} % of their time and waited for the rest: more memory would not make \
                 them faster",
                self.of_wall(self.cpu_us)
            ),
        }
    }
}

/// A number with as many digits as say something.
struct Rounded(f64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 >= 10.0 { 0 } else { 2 };
        write!(f, "{:.digits$}", self.0)
    }
}

/// The last calls of one version and what follows from them, brought up to date now and then.
#[derive(Debug, Default)]
pub struct Advised {
    last: LastCalls,
    advice: Option<Arc<Advice>>,
    /// Looks in a row that recommended the same.
    agreed: u32,
}

impl Advised {
    /// From calls that an earlier process noted.
    pub fn recalled(last: LastCalls, memory_mb: u32, limits: &Limits) -> Self {
        let mut advised = Self { last, ..Self::default() };
        advised.look(memory_mb, limits);
        advised
    }

    pub fn last(&self) -> &LastCalls {
        &self.last
    }

    /// Notes a call and looks again where it is time to. Allocates only where it finds a new thing to say.
    pub fn note(&mut self, used: &Used, memory_mb: u32, limits: &Limits) {
        self.last.note(used);
        if self.last.noted.is_multiple_of(LOOK_EVERY) {
            self.look(memory_mb, limits);
        }
    }

    fn look(&mut self, memory_mb: u32, limits: &Limits) {
        let fresh = self.last.conclude(memory_mb, limits);
        let gist = |advice: &Advice| (advice.reason, advice.recommended_memory_mb);
        let same = fresh.as_ref().map(|(_, reason, mb)| (*reason, *mb)) == self.advice.as_deref().map(gist);
        if same && !self.last.noted.is_multiple_of(REWORD_EVERY) {
            self.agreed = self.agreed.saturating_add(1);
            return;
        }
        self.agreed = if same { self.agreed.saturating_add(1) } else { 1 };
        self.advice = fresh.map(|(look, reason, mb)| Arc::new(look.advice(reason, mb)));
    }

    pub fn advice(&self) -> Option<&Arc<Advice>> {
        self.advice.as_ref()
    }

    /// What a version that asked for it is given next: the same for so long that it will not change with the next call.
    pub fn stable_memory_mb(&self) -> Option<u32> {
        let advice = self.advice.as_ref().filter(|_| self.agreed >= STABLE_LOOKS)?;
        (advice.reason != Reason::Waiting).then_some(advice.recommended_memory_mb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1024 * 1024;

    fn used(peak_mb: u64, wall_ms: u64, cpu_ms: u64) -> Used {
        Used {
            peak_memory_bytes: peak_mb * MB,
            wall: Duration::from_millis(wall_ms),
            cpu: Duration::from_millis(cpu_ms),
            throttled: Duration::ZERO,
            out_of_memory: false,
            timed_out: false,
        }
    }

    fn advice(memory_mb: u32, calls: impl IntoIterator<Item = Used>) -> Option<Advice> {
        let mut last = LastCalls::default();
        calls.into_iter().for_each(|call| last.note(&call));
        last.advice(memory_mb, &Limits::default())
    }

    #[track_caller]
    fn verdict(memory_mb: u32, calls: impl IntoIterator<Item = Used>) -> (Reason, u32) {
        let advice = advice(memory_mb, calls).expect("there is something to say");
        (advice.reason, advice.recommended_memory_mb)
    }

    #[test]
    fn few_calls_say_nothing_and_neither_do_good_ones() {
        assert_eq!(advice(1024, vec![used(40, 50, 40); CALLS_MIN - 1]), None);
        assert_eq!(advice(128, vec![used(90, 50, 40); 40]), None);
        assert_eq!(advice(64, vec![used(20, 50, 40); 40]), None, "there is no less than the least");
    }

    #[test]
    fn the_highest_peak_of_the_last_calls_decides_and_not_the_last_one() {
        let mut calls = vec![used(40, 50, 40); 31];
        assert_eq!(verdict(1024, calls.clone()), (Reason::Waste, 64));
        calls.insert(5, used(400, 50, 40));
        assert_eq!(verdict(1024, calls.clone()), (Reason::Waste, 512));
        calls.extend(vec![used(40, 50, 40); LAST]);
        assert_eq!(verdict(1024, calls), (Reason::Waste, 64), "in time it is forgotten");
    }

    #[test]
    fn a_saving_is_of_calls_and_their_duration() {
        let advice = advice(1024, vec![used(200, 2000, 1000); 32]).unwrap();
        assert_eq!(advice.recommended_memory_mb, 256);
        assert_eq!(advice.saved_gb_s_per_thousand_calls, 1500.0);
        assert_eq!(
            advice.estimated_savings.as_deref(),
            Some("1500 GB·s in a thousand calls, 75 % of their memory-time")
        );
        assert_eq!(&*advice.tip, "the last 32 calls used at most 200 of 1024 MB: 256 MB would do");
    }

    #[test]
    fn running_out_of_memory_doubles_it_within_the_limits() {
        let dead = Used { out_of_memory: true, ..used(128, 50, 40) };
        let calls = || vec![used(100, 50, 40); 31].into_iter().chain([dead]);
        assert_eq!(verdict(128, calls()), (Reason::MemoryRisk, 256));
        assert_eq!(verdict(8192, calls()), (Reason::MemoryRisk, 10_240));
        assert_eq!(advice(10_240, calls()), None, "there is no more to give");
    }

    #[test]
    fn a_peak_close_to_the_limit_is_a_risk() {
        assert_eq!(verdict(128, vec![used(120, 50, 40); 32]), (Reason::MemoryRisk, 160));
        assert!(advice(128, vec![used(120, 50, 40); 32]).unwrap().estimated_savings.is_none());
    }

    #[test]
    fn a_throttled_function_gets_more_up_to_one_processor() {
        let throttled = |percent: u64| {
            let throttled = Duration::from_millis(10 * percent);
            vec![Used { throttled, ..used(60, 1000, 900) }; 32]
        };
        assert_eq!(verdict(128, throttled(50)), (Reason::CpuBound, 256));
        assert_eq!(verdict(128, throttled(90)), (Reason::CpuBound, 256));
        assert_eq!(verdict(1600, throttled(50)), (Reason::CpuBound, 1792));
        // What is throttled is not told to give up processor.
        assert_ne!(verdict(512, throttled(50)).0, Reason::Waste);
    }

    #[test]
    fn a_function_that_waits_is_told_so() {
        let calls = vec![used(100, 2000, 20); 32];
        assert_eq!(verdict(128, calls.clone()), (Reason::Waiting, 128));
        let dying = calls.into_iter().map(|call| Used { timed_out: true, ..call });
        assert!(advice(128, dying).unwrap().tip.starts_with("32 of the last 32 calls timed out"));
        assert_eq!(advice(128, vec![used(100, 50, 1); 32]), None, "too short to speak of");
    }

    #[test]
    fn a_version_is_resized_only_by_what_stays_the_same() {
        let (mut advised, limits) = (Advised::default(), Limits::default());
        for n in 0..u64::from(STABLE_LOOKS) * LOOK_EVERY {
            assert_eq!(advised.stable_memory_mb(), None, "after {n}");
            advised.note(&used(40, 50, 40), 512, &limits);
        }
        assert_eq!(advised.stable_memory_mb(), None, "the first look had too few calls");
        (0..LOOK_EVERY).for_each(|_| advised.note(&used(40, 50, 40), 512, &limits));
        assert_eq!(advised.stable_memory_mb(), Some(64));
        (0..LOOK_EVERY).for_each(|_| advised.note(&used(100, 50, 40), 512, &limits));
        assert_eq!(advised.stable_memory_mb(), None);
        assert_eq!(advised.advice().unwrap().recommended_memory_mb, 128);
    }

    #[test]
    fn a_version_costs_less_than_a_kilobyte() {
        assert!(size_of::<Advised>() < 800, "{}", size_of::<Advised>());
    }

    proptest! {
        /// Followed, advice is within the limits and leads to a version about which there is nothing to say.
        #[test]
        fn advice_settles(memory_mb in 64u32..10_240, peaks in prop::collection::vec(1u64..12_000, LAST)) {
            let limits = Limits::default();
            let mut memory_mb = memory_mb;
            for _ in 0..12 {
                let calls = peaks.iter().map(|peak| {
                    let out_of_memory = *peak > u64::from(memory_mb);
                    Used { out_of_memory, ..used((*peak).min(memory_mb.into()), 50, 40) }
                });
                let Some(advice) = advice(memory_mb, calls) else { return Ok(()) };
                prop_assert!((limits.memory_mb_min..=limits.memory_mb_max).contains(&advice.recommended_memory_mb));
                prop_assert_ne!(advice.recommended_memory_mb, memory_mb);
                memory_mb = advice.recommended_memory_mb;
            }
            prop_assert!(false, "it goes on for ever");
        }
    }
}
