//! A burst: two hundred calls at once to a function that nobody has called.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::answer;
use super::control::run_request;
use super::daemon::Daemon;
use super::rows;

const CALLS: usize = 200;
/// Bursts, each to another function.
const BURSTS: usize = 5;
/// Between two: what the one before started is idle, and the generic sandboxes are there again.
const PAUSE: Duration = Duration::from_secs(1);

struct Case {
    name: &'static str,
    runtime: &'static str,
    source: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        name: "burst of 200, python, echo",
        runtime: "python",
        source: "def handler(event, context):\n    return event\n",
    },
    Case {
        name: "burst of 200, python, sleeping 50 ms",
        runtime: "python",
        source: "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return event\n",
    },
];

pub fn measure() -> io::Result<()> {
    for case in &CASES {
        let daemon = Daemon::start(Path::new(env!("CARGO_BIN_EXE_faasd")), &[])?;
        let mut control = daemon.control()?;
        std::thread::sleep(PAUSE);
        let (mut first, mut median, mut last, mut started) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for nth in 0..BURSTS {
            let name = format!("burst-{nth}");
            control.deploy(&json!({ "name": name, "runtime": case.runtime, "code": { "inline": case.source } }))?;
            std::thread::sleep(PAUSE);
            let mut answered = burst(&daemon, &run_request(&daemon.key, &name, ""))?;
            answered.sort_by_key(|(took, _)| *took);
            first.push(answered[0].0);
            median.push(answered[CALLS / 2].0);
            last.push(answered[CALLS - 1].0);
            started.push(sandboxes_of(&answered));
        }
        for (figure, mut took) in [("first answer", first), ("median answer", median), ("last answer", last)] {
            took.sort();
            rows::add(&format!("{}: {figure}", case.name), took[BURSTS / 2].as_secs_f64() * 1e3, "ms")?;
        }
        started.sort_unstable();
        rows::add(&format!("{}: sandboxes that served a first call", case.name), started[BURSTS / 2] as f64, "")?;
    }
    Ok(())
}

/// Each sandbox's first call says how it was come by.
fn sandboxes_of(answered: &[(Duration, Value)]) -> usize {
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, record) in answered {
        *types.entry(record["startType"].as_str().unwrap_or("")).or_default() += 1;
    }
    println!("  {types:?}");
    types.iter().filter(|(name, _)| ["COLD", "PREWARMED"].contains(name)).map(|(_, calls)| calls).sum()
}

/// Sends on as many connections as there are calls, then reads whichever answers. Each call's time from the first byte sent.
fn burst(daemon: &Daemon, request: &[u8]) -> io::Result<Vec<(Duration, Value)>> {
    let mut streams = Vec::new();
    for _ in 0..CALLS {
        let stream = TcpStream::connect(daemon.address)?;
        stream.set_nodelay(true)?;
        streams.push((stream, Vec::new()));
    }
    let since = Instant::now();
    for (stream, _) in &mut streams {
        stream.write_all(request)?;
    }
    let mut answered = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while !streams.is_empty() {
        let mut waited: Vec<_> =
            streams.iter().map(|(stream, _)| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut waited, PollTimeout::NONE)?;
        let ready: Vec<bool> = waited.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        for index in (0..ready.len()).rev().filter(|index| ready[*index]) {
            let (stream, held) = &mut streams[index];
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            held.extend_from_slice(&chunk[..read]);
            if let Some(found) = answer::read(held) {
                let record: Value = serde_json::from_slice(&held[found.body_from..found.end])?;
                if record["status"] != "SUCCESS" {
                    return Err(io::Error::other(format!("a call of the burst failed: {record}")));
                }
                answered.push((since.elapsed(), record));
                streams.swap_remove(index);
            }
        }
    }
    Ok(answered)
}
