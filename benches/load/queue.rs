//! Asynchronous calls: how fast they are accepted, and how long one takes from its acceptance to its end.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::PYTHON_ECHO;
use super::harness::answer::Verdict;
use super::harness::control::{Control, run_request};
use super::harness::daemon::Daemon;
use super::harness::engine::{Load, Loop, Tally};
use super::round::Round;

const SINGLE: &str = "async, one at a time";
const ACCEPTS: &str = "async accepts, durable, 64 connections";
const CONNECTIONS: usize = 64;
const SINGLE_CALLS: usize = 300;
const ASYNC: &str = "x-async: true\r\n";

pub fn measure(round: &Round<'_>) -> io::Result<()> {
    if !round.wants(SINGLE) && !round.wants(ACCEPTS) {
        return Ok(());
    }
    let daemon = round.daemon(&[])?;
    let mut control = daemon.control()?;
    control.deploy(&json!({ "name": "python", "runtime": "python", "code": { "inline": PYTHON_ECHO } }))?;
    if round.wants(SINGLE) {
        let single = one_at_a_time(&daemon, &mut control)?;
        round.tell(&format!("{SINGLE}, accepted to done"), &single)?;
    }
    if round.wants(ACCEPTS) {
        accepts(round, &daemon, &mut control)?;
    }
    Ok(())
}

/// Every accepted job is followed to its end.
fn accepts(round: &Round<'_>, daemon: &Daemon, control: &mut Control) -> io::Result<()> {
    let load = Load {
        address: daemon.address,
        requests: &[run_request(&daemon.key, "python", ASYNC)],
        connections: CONNECTIONS,
        schedule: Loop::Closed,
        warm_up: Duration::ZERO,
        duration: round.options.duration(),
        keep_ids: true,
    };
    let begun = Instant::now();
    let accepts = load.run()?;
    let ended = control.all_ended(&accepts.accepted)?;
    round.tell_rate(ACCEPTS, &accepts)?;
    let lost = accepts.accepted.len() as u64 - ended;
    round.rows.add(&format!("{ACCEPTS}: done"), ended as f64 / begun.elapsed().as_secs_f64(), "/s")?;
    round.rows.add(&format!("{ACCEPTS}: lost"), lost as f64, "jobs")
}

/// From sending the call to reading its final record; polled over the same connection, so one poll too long at most.
fn one_at_a_time(daemon: &Daemon, control: &mut Control) -> io::Result<Tally> {
    let request = run_request(&daemon.key, "python", ASYNC);
    let mut tally = Tally::new();
    for _ in 0..SINGLE_CALLS {
        let sent = Instant::now();
        let (status, body) = control.exchange(&request)?;
        let body: serde_json::Value = serde_json::from_slice(&body)?;
        let Some(id) = body["jobId"].as_str().filter(|_| status == 202) else {
            tally.record(Verdict::Failed, Duration::ZERO);
            continue;
        };
        let (status, start) = control.wait_final(id)?;
        let verdict = if status == "SUCCESS" { Verdict::Done { warm: start == "WARM" } } else { Verdict::Failed };
        tally.record(verdict, sent.elapsed());
        tally.measured += sent.elapsed();
    }
    Ok(tally)
}
