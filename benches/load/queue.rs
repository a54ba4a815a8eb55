//! Asynchronous calls: how fast they are accepted, and how long one takes from its acceptance to its end.

use std::io;
use std::time::{Duration, Instant};

use super::answer::Verdict;
use super::control::{Control, run_request};
use super::daemon::Daemon;
use super::engine::{Load, Loop, Tally};
use super::options::Options;
use super::report::Row;

const CONNECTIONS: usize = 64;
const SINGLE_CALLS: usize = 300;
const DONE_LIMIT: Duration = Duration::from_secs(60);
const ASYNC: &str = "x-async: true\r\n";

pub fn measure(options: &Options, daemon: &Daemon) -> io::Result<Vec<Row>> {
    let mut control = daemon.control()?;
    eprintln!("async, one at a time …");
    let single = one_at_a_time(daemon, &mut control)?;
    eprintln!("async, {CONNECTIONS} connections …");
    let request = run_request(&daemon.key, "python", ASYNC);
    let load = Load {
        address: daemon.address,
        request: &request,
        connections: CONNECTIONS,
        schedule: Loop::Closed,
        warm_up: Duration::ZERO,
        duration: options.duration() / 2,
        keep_ids: true,
    };
    let begun = Instant::now();
    let accepts = load.run()?;
    let ended = all_ended(&mut control, &accepts.accepted)?;
    let took = begun.elapsed();
    let completed = Row {
        case: "async accepted, then completed".to_owned(),
        completed: Some(ended),
        per_second: Some(ended as f64 / took.as_secs_f64()),
        failed: Some(accepts.accepted.len() as u64 - ended),
        goal: "none lost",
        ..Row::default()
    };
    Ok(vec![
        Row::of("async accepted to done, one at a time", "p50 ≤ 2 ms", &single),
        Row { warm_percent: None, ..Row::of("async accepts, durable, 64 connections", "≥ 10 000/s", &accepts) },
        completed,
    ])
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
        let (status, start) = wait_final(control, id)?;
        let verdict = if status == "SUCCESS" { Verdict::Done { warm: start == "WARM" } } else { Verdict::Failed };
        tally.record(verdict, sent.elapsed());
        tally.measured += sent.elapsed();
    }
    Ok(tally)
}

fn wait_final(control: &mut Control, id: &str) -> io::Result<(String, String)> {
    let since = Instant::now();
    loop {
        let (_, record) = control.send("GET", &format!("/status/{id}"), "", "")?;
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let status = text("status");
        if !matches!(status.as_str(), "QUEUED" | "RUNNING") || since.elapsed() > DONE_LIMIT {
            return Ok((status, text("startType")));
        }
    }
}

/// How many of the accepted jobs came to SUCCESS.
fn all_ended(control: &mut Control, ids: &[String]) -> io::Result<u64> {
    let mut ended = 0;
    for id in ids {
        ended += u64::from(wait_final(control, id)?.0 == "SUCCESS");
    }
    Ok(ended)
}
