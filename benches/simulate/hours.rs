//! What making functions ready by the hour of the day could save at the most, and what it would cost: of functions that were called in
//! the same hour of the two days before.

use std::collections::HashMap;

use super::trace::Trace;

const HOUR_MS: u64 = 3_600_000;

#[derive(Clone, Copy, Debug, Default)]
pub struct Hours {
    /// Cold calls that were the first in such an hour.
    pub avoidable: u64,
    /// From the beginning of each such hour to its first call or its end, by memory.
    pub idle_mb_s: f64,
}

/// `cold` are places in the trace.
pub fn bound(trace: &Trace, cold: &[usize]) -> Hours {
    // The first call of each function in each hour: when, and which.
    let mut first: HashMap<(u32, u64), (u64, usize)> = HashMap::new();
    for (place, call) in trace.calls.iter().enumerate() {
        first.entry((call.function, call.at_ms / HOUR_MS)).or_insert((call.at_ms, place));
    }
    let was_called = |function, hour: Option<u64>| hour.is_some_and(|hour| first.contains_key(&(function, hour)));
    let by_habit =
        |function, hour: u64| was_called(function, hour.checked_sub(24)) && was_called(function, hour.checked_sub(48));
    let mut hours = Hours::default();
    let last = trace.calls.last().map_or(0, |call| call.at_ms / HOUR_MS);
    for &(function, hour) in first.keys() {
        // Each hour is somebody's second day before, whether or not the function is called in it.
        let at = hour + 48;
        if at <= last && by_habit(function, at) {
            let called = first.get(&(function, at)).map_or((at + 1) * HOUR_MS, |(at_ms, _)| *at_ms);
            let seconds = (called - at * HOUR_MS) as f64 / 1000.0;
            hours.idle_mb_s += seconds * f64::from(trace.functions[function as usize].memory_mb);
        }
    }
    for &place in cold {
        let call = trace.calls[place];
        let hour = call.at_ms / HOUR_MS;
        let is_first = first.get(&(call.function, hour)).is_some_and(|(_, first)| *first == place);
        hours.avoidable += u64::from(is_first && by_habit(call.function, hour));
    }
    hours
}
