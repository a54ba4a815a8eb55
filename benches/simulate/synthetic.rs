//! A trace made up after what is published of Azure's: how often functions are called spans eight orders of magnitude (45 % at most
//! once an hour, 81 % at most once a minute: a log-normal distribution through both), some by the clock, some at random, most in bursts,
//! many by day only.

use std::time::Duration;

use super::dice::Dice;
use super::trace::{Call, Function, Trace};

const DAY_S: f64 = 86_400.0;
/// Calls a day, by the mean and deviation of the logarithm: through 24 at 45 % and 1440 at 81 %.
const RATE_MU: f64 = 3.691;
const RATE_SIGMA: f64 = 4.079;
/// More often is always warm, whatever the policy, and would only take time to replay.
const RATE_MAX: f64 = 4320.0;
/// Less often is not called in a week.
const RATE_MIN: f64 = 0.15;
/// Shares of the kinds of function; the rest comes in bursts.
const BY_CLOCK: f64 = 0.25;
const AT_RANDOM: f64 = 0.35;
/// Of those not by the clock, how many follow the day.
const BY_DAY: f64 = 0.5;
/// What timers are set to, in minutes.
const PERIODS: [f64; 10] = [1.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 240.0, 720.0, 1440.0];
/// Calls in a burst, in the mean, and the median seconds between them.
const BURST: f64 = 8.0;
const BURST_GAP_S: f64 = 3.0;

/// The same for the same arguments.
pub fn trace(seed: u64, functions: u32, days: u32) -> Trace {
    let mut dice = Dice::new(seed);
    let until = f64::from(days) * DAY_S;
    let (mut all, mut calls) = (Vec::new(), Vec::new());
    for function in 0..functions {
        let mut dice = Dice::new(dice.next());
        all.push(Function { memory_mb: dice.memory_mb(), init: dice.init(), left_out: 0 });
        let hold = dice.hold();
        let rate = dice.log_normal(RATE_MU, RATE_SIGMA).clamp(RATE_MIN, RATE_MAX);
        let mut at = |seconds: f64| {
            let (at_ms, hold_ms) = ((seconds * 1000.0) as u64, hold.as_millis() as u32);
            calls.push(Call { at_ms, function, hold_ms });
        };
        let kind = dice.unit();
        if kind < BY_CLOCK {
            by_clock(&mut dice, rate, until, &mut at);
        } else if kind < BY_CLOCK + AT_RANDOM {
            let by_day = dice.unit() < BY_DAY;
            at_random(&mut dice, rate, by_day, until, &mut at);
        } else {
            let by_day = dice.unit() < BY_DAY;
            in_bursts(&mut dice, rate, by_day, until, hold, &mut at);
        }
    }
    Trace::sorted(all, calls)
}

fn by_clock(dice: &mut Dice, rate: f64, until: f64, at: &mut impl FnMut(f64)) {
    let wanted = (DAY_S / 60.0 / rate).ln();
    let nearest = PERIODS.into_iter().min_by(|a, b| (a.ln() - wanted).abs().total_cmp(&(b.ln() - wanted).abs()));
    let period = nearest.unwrap_or(60.0) * 60.0;
    let mut time = dice.unit() * period;
    while time < until {
        at(time + dice.exponential(1.0).min(30.0));
        time += period;
    }
}

fn at_random(dice: &mut Dice, rate: f64, by_day: bool, until: f64, at: &mut impl FnMut(f64)) {
    let mut time = 0.0;
    while time < until {
        time += dice.exponential(DAY_S / rate / if by_day { 2.0 } else { 1.0 });
        if time < until && (!by_day || is_up(dice, time)) {
            at(time);
        }
    }
}

fn in_bursts(dice: &mut Dice, rate: f64, by_day: bool, until: f64, hold: Duration, at: &mut impl FnMut(f64)) {
    let between = BURST * DAY_S / rate / if by_day { 2.0 } else { 1.0 };
    let mut time = dice.unit() * between;
    while time < until {
        let size = 1 + dice.exponential(BURST - 1.0) as u32;
        let runs = !by_day || is_up(dice, time);
        for _ in 0..size {
            if runs && time < until {
                at(time);
            }
            time += hold.as_secs_f64() * 0.5 + dice.log_normal(BURST_GAP_S.ln(), 1.5).min(600.0);
        }
        // Heavier than exponential: long silences, and bursts that follow each other. Its mean is `between`.
        time += between * dice.log_normal(-0.72, 1.2);
    }
}

/// Whether a call that follows the day happens: at noon all do, at midnight none, half over the day.
fn is_up(dice: &mut Dice, time: f64) -> bool {
    let noonness = 0.5 - 0.5 * (time / DAY_S * std::f64::consts::TAU).cos();
    dice.unit() < noonness
}
