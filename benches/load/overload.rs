//! Twice the capacity: what is still completed, how long the accepted wait, what a refusal takes, and how soon all is well again.
//! Refused calls (429, 503) are not failures here; unanswered ones are.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::PYTHON_ECHO;
use super::harness::control::{Control, run_request};
use super::harness::daemon::Daemon;
use super::harness::engine::{Load, Loop, Tally};
use super::harness::process;
use super::round::{Round, WARM_UP};

const CASE: &str = "twice the capacity, python";
const REFUSED: &str = "refused, python";
const CONNECTIONS_OF_CAPACITY: usize = 64;
const CONNECTIONS: usize = 1024;
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);
/// Calls in a row of which the median must be as before.
const RECOVERED_CALLS: usize = 20;
/// `pool.queue_wait_ms` of the case: less than by default, so that the connections of the case suffice to reach it.
const QUEUE_WAIT_MS: f64 = 25.0;

pub fn measure(round: &Round<'_>) -> io::Result<()> {
    if round.wants(CASE) {
        over_capacity(round)?;
    }
    if round.wants(REFUSED) {
        refusals(round)?;
    }
    Ok(())
}

fn over_capacity(round: &Round<'_>) -> io::Result<()> {
    let daemon = round.daemon(&[("POOL__QUEUE_WAIT_MS", &QUEUE_WAIT_MS.to_string())])?;
    let mut control = daemon.control()?;
    control.deploy(&json!({ "name": "python", "runtime": "python", "code": { "inline": PYTHON_ECHO } }))?;
    let request = run_request(&daemon.key, "python", "");
    let unloaded = round.closed(daemon.address, &request, 1)?;
    let capacity = round.closed(daemon.address, &request, CONNECTIONS_OF_CAPACITY)?;
    let tell = |figure: &str, value: f64, unit: &str| round.rows.add(&format!("{CASE}: {figure}"), value, unit);
    tell("capacity", capacity.per_second(), "/s")?;
    tell("daemon RSS before", process::rss(daemon.pid()) as f64 / 1e6, "MB")?;
    let over = offer(round, &daemon, &request, (capacity.per_second() * 2.0) as u64)?;
    let recovered = over.tail + recovery(&mut control, &request, &unloaded)?;
    round.tell_rate(CASE, &over)?;
    tell("of the capacity", over.per_second() * 100.0 / capacity.per_second().max(1.0), "%")?;
    tell("unloaded p99", unloaded.ms(0.99).unwrap_or(f64::NAN), "ms")?;
    let line_ms = round.options.queue_bound_ms.unwrap_or(QUEUE_WAIT_MS);
    let bound = 2.0 * unloaded.ms(0.99).unwrap_or(0.0) + line_ms;
    tell("bound of p99", bound, "ms")?;
    tell("p99 of its bound", over.ms(0.99).unwrap_or(f64::INFINITY) * 100.0 / bound, "%")?;
    if !over.refusals.is_empty() {
        tell("refusal p50", over.refusals.value_at_quantile(0.5) as f64 / 1e6, "ms")?;
        tell("refusal p99", over.refusals.value_at_quantile(0.99) as f64 / 1e6, "ms")?;
    }
    tell("recovered after", recovered.as_secs_f64() * 1000.0, "ms")?;
    tell("daemon RSS at most", process::rss_peak(daemon.pid()) as f64 / 1e6, "MB")?;
    std::thread::sleep(Duration::from_secs(1));
    tell("daemon RSS after", process::rss(daemon.pid()) as f64 / 1e6, "MB")
}

fn offer(round: &Round<'_>, daemon: &Daemon, request: &[u8], rate: u64) -> io::Result<Tally> {
    process::forget_peak(daemon.pid());
    let load = Load {
        address: daemon.address,
        requests: &[request.to_vec()],
        connections: CONNECTIONS,
        schedule: Loop::Open { rate: rate.max(1) },
        warm_up: WARM_UP,
        duration: round.options.duration() * 2,
        keep_ids: false,
    };
    load.run()
}

/// Until single calls take at most twice what they took unloaded.
fn recovery(control: &mut Control, request: &[u8], unloaded: &Tally) -> io::Result<Duration> {
    let usual = Duration::from_secs_f64(unloaded.ms(0.5).unwrap_or(0.0) / 1000.0);
    let begun = Instant::now();
    loop {
        let from = begun.elapsed();
        let mut took = Vec::with_capacity(RECOVERED_CALLS);
        for _ in 0..RECOVERED_CALLS {
            let sent = Instant::now();
            let (status, _) = control.exchange(request)?;
            took.push(if status == 200 { sent.elapsed() } else { RECOVERY_LIMIT });
        }
        took.sort();
        if took[RECOVERED_CALLS / 2] <= usual * 2 || from > RECOVERY_LIMIT {
            return Ok(from);
        }
    }
}

/// Calls beyond the one that an owner may have at once, which runs meanwhile: answered by refusals and nothing else.
fn refusals(round: &Round<'_>) -> io::Result<()> {
    let settings =
        [("LIMITS__CONCURRENCY_PER_OWNER", "1"), ("SHUTDOWN__DRAIN_MS", "100"), ("SANDBOX__GRACE_MS", "100")];
    let daemon = round.daemon(&settings)?;
    let mut control = daemon.control()?;
    let sleep = "import time\ndef handler(event, context):\n    time.sleep(25)\n";
    control.deploy(&json!({ "name": "python", "runtime": "python", "code": { "inline": sleep } }))?;
    let request = run_request(&daemon.key, "python", "");
    let mut sleeper = daemon.control()?;
    let busy = std::thread::spawn({
        let request = request.clone();
        move || sleeper.exchange(&request)
    });
    std::thread::sleep(Duration::from_millis(200));
    let before = process::cpu(daemon.pid());
    let tally = round.closed(daemon.address, &request, 1)?;
    let spent = process::cpu(daemon.pid()) - before;
    let tell = |figure: &str, value: f64, unit: &str| round.rows.add(&format!("{REFUSED}: {figure}"), value, unit);
    tell("p50", tally.refusals.value_at_quantile(0.5) as f64 / 1e6, "ms")?;
    tell("p99", tally.refusals.value_at_quantile(0.99) as f64 / 1e6, "ms")?;
    let window = round.options.duration() + WARM_UP;
    let all = tally.refused as f64 * window.as_secs_f64() / round.options.duration().as_secs_f64();
    tell("processor time", spent.as_secs_f64() * 1e6 / all.max(1.0), "µs")?;
    tell("failed", (tally.failed + tally.completed) as f64, "calls")?;
    // The sleeper's connection ends with the daemon.
    drop(daemon);
    let _ = busy.join();
    Ok(())
}
