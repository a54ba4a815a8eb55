//! What keep-alive promises, on traces through the pool itself; `make simulate` prints the whole comparison.

#[path = "../benches/simulate/azure.rs"]
mod azure;
#[path = "../benches/simulate/dice.rs"]
mod dice;
#[path = "../benches/simulate/replay.rs"]
mod replay;
#[path = "../benches/simulate/synthetic.rs"]
mod synthetic;
#[path = "../benches/simulate/trace.rs"]
mod trace;

use std::time::Duration;

use faasd::domain::policy::evict::Eviction;
use faasd::domain::policy::keep_alive::KeepAlive;

use replay::{Outcome, Policy};
use trace::{Call, Function, Trace};

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

const ADAPTIVE: KeepAlive = KeepAlive::Adaptive { standard: minutes(10), most: minutes(30) };

fn of(trace: &Trace, keep_alive: KeepAlive) -> Outcome {
    replay::replay(trace, Policy { keep_alive, eviction: Eviction::GreedyDual, memory_budget_mb: None })
}

fn every(period: Duration, calls: u64) -> Trace {
    let call = |n: u64| Call { at_ms: n * period.as_millis() as u64, function: 0, hold_ms: 100 };
    let function = Function { memory_mb: 128, init: Duration::from_millis(300), left_out: 0 };
    Trace::sorted(vec![function], (0..calls).map(call).collect())
}

/// Three weeks of different functions: the mean share of cold calls, the mean of the third quartiles, and idle memory in GB·h.
fn weeks(keep_alive: KeepAlive) -> (f64, f64, f64) {
    let outcomes: Vec<_> = (1..=3).map(|seed| of(&synthetic::trace(seed, 150, 7), keep_alive)).collect();
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64;
    (mean(Outcome::cold_share), mean(Outcome::third_quartile), mean(Outcome::idle_gb_h))
}

#[test]
fn the_adaptive_policy_has_six_tenths_of_the_cold_calls_of_ten_minutes_for_a_fifth_more_memory() {
    let (fixed, adaptive) = (weeks(KeepAlive::Fixed(minutes(10))), weeks(ADAPTIVE));
    assert!(adaptive.0 <= 0.6 * fixed.0, "cold calls: {:.4} of {:.4}", adaptive.0, fixed.0);
    assert!(adaptive.1 <= 0.75 * fixed.1, "third quartile: {:.3} of {:.3}", adaptive.1, fixed.1);
    assert!(adaptive.2 <= 1.2 * fixed.2, "idle GB·h: {:.0} of {:.0}", adaptive.2, fixed.2);
}

#[test]
fn the_adaptive_policy_is_better_than_twenty_minutes_in_calls_and_in_memory() {
    let (fixed, adaptive) = (weeks(KeepAlive::Fixed(minutes(20))), weeks(ADAPTIVE));
    assert!(adaptive.0 <= fixed.0, "cold calls: {:.4} of {:.4}", adaptive.0, fixed.0);
    assert!(adaptive.2 <= fixed.2, "idle GB·h: {:.0} of {:.0}", adaptive.2, fixed.2);
}

#[test]
fn an_hourly_timer_is_warm_once_it_is_known_for_a_third_of_the_memory_of_keeping_it() {
    let trace = every(minutes(60), 100);
    let adaptive = of(&trace, ADAPTIVE);
    assert_eq!(adaptive.cold, (0..11).collect::<Vec<_>>(), "the first, and until ten pauses are noted");
    assert_eq!(of(&trace, KeepAlive::Fixed(minutes(10))).cold.len(), 100);
    let kept = of(&trace, KeepAlive::Fixed(minutes(61)));
    assert_eq!(kept.cold.len(), 1);
    assert!(adaptive.idle_mb_s < kept.idle_mb_s / 3.0, "{} of {}", adaptive.idle_mb_s, kept.idle_mb_s);
}

#[test]
fn a_first_hour_of_calls_is_as_warm_as_with_ten_minutes() {
    for pause in [1, 3, 7, 9] {
        let trace = every(minutes(pause), 60 / pause);
        assert_eq!(of(&trace, ADAPTIVE).cold, of(&trace, KeepAlive::Fixed(minutes(10))).cold, "every {pause} minutes");
    }
}

#[test]
fn greedy_dual_eviction_makes_callers_wait_less_where_memory_is_short() {
    let trace = synthetic::trace(1, 150, 3);
    let under =
        |eviction| replay::replay(&trace, Policy { keep_alive: ADAPTIVE, eviction, memory_budget_mb: Some(6000) });
    let (oldest, dual) = (under(Eviction::LongestIdle), under(Eviction::GreedyDual));
    assert!(oldest.evicted > 1000, "memory is not short: {} evicted", oldest.evicted);
    assert!(dual.waited < oldest.waited * 9 / 10, "{:?} of {:?}", dual.waited, oldest.waited);
}

#[test]
fn both_azure_traces_are_read() {
    let mut day = vec!["0"; 1440];
    (day[1], day[1439]) = ("2", "9");
    let head: Vec<String> = (1..=1440).map(|minute| minute.to_string()).collect();
    let head = format!("HashOwner,HashApp,HashFunction,Trigger,{}", head.join(","));
    let file = format!("{head}\no,a,f,http,{}\n", day.join(","));
    let mut reader = azure::Reader::new(10);
    reader.read(file.as_bytes()).unwrap();
    reader.read(file.as_bytes()).unwrap();
    let trace = reader.trace();
    // Four of nine in a minute are replayed, the others only counted.
    assert_eq!((trace.functions.len(), trace.calls.len(), trace.all_calls()), (1, 12, 22));
    let at: Vec<u64> = trace.calls.iter().map(|call| call.at_ms).take(3).collect();
    assert_eq!(at, [0, 30_000, 1438 * 60_000 - 15_000 + 7_500]);

    let mut reader = azure::Reader::new(10);
    reader.read("app,func,end_timestamp,duration\na,f,10.5,0.5\na,g,11,2.25\n".as_bytes()).unwrap();
    let trace = reader.trace();
    let call = |at_ms, function, hold_ms| Call { at_ms, function, hold_ms };
    assert_eq!(trace.calls, [call(0, 1, 2250), call(1250, 0, 500)]);

    for (file, what) in [("", "empty"), ("a,b\n", "neither"), ("app,func,end_timestamp,duration\na,f,x,1\n", "line 2")]
    {
        let error = azure::Reader::new(10).read(file.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}
