//! The cases, in order, and which daemon each of them wants.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::bare::BareHop;
use super::control::run_request;
use super::daemon::Daemon;
use super::engine::{Load, Loop, Tally};
use super::options::Options;
use super::report::{Report, Row};
use super::{cold, idle, queue};

const WARM_UP: Duration = Duration::from_secs(1);
const PYTHON_ECHO: &str = "def handler(event, context):\n    return event\n";
/// Speaks the Runtime API, so that one process serves all calls.
const NATIVE_ECHO: &str = include_str!("echo.cpp");

/// How many calls a second are offered.
#[derive(Clone, Copy)]
enum Offered {
    /// As many as are answered.
    Closed,
    /// As many as the options say.
    Rate,
    /// Twice what the last closed loop completed.
    TwiceCapacity,
}

/// A steady load on one function.
struct Warm {
    name: &'static str,
    function: &'static str,
    connections: usize,
    offered: Offered,
    goal: &'static str,
}

const WARM: [Warm; 8] = [
    Warm {
        name: "warm python, 1 connection",
        function: "python",
        connections: 1,
        offered: Offered::Closed,
        goal: "p50 ≤ 0.13, p99 ≤ 0.35 ms",
    },
    Warm { name: "warm native, 1 connection", function: "native", connections: 1, offered: Offered::Closed, goal: "" },
    Warm {
        name: "warm python, 64 connections",
        function: "python",
        connections: 64,
        offered: Offered::Closed,
        goal: "≥ 25 000/s",
    },
    Warm {
        name: "warm native, 64 connections",
        function: "native",
        connections: 64,
        offered: Offered::Closed,
        goal: "≥ 40 000/s",
    },
    Warm {
        name: "warm python, 256 connections",
        function: "python",
        connections: 256,
        offered: Offered::Closed,
        goal: "",
    },
    Warm {
        name: "twice the capacity, warm python, 512 connections",
        function: "python",
        connections: 512,
        offered: Offered::TwiceCapacity,
        goal: "≥ 95 % of the capacity completed",
    },
    Warm {
        name: "open loop python, 64 connections",
        function: "python",
        connections: 64,
        offered: Offered::Rate,
        goal: "",
    },
    Warm {
        name: "open loop python, 2000 connections",
        function: "python",
        connections: 2000,
        offered: Offered::Rate,
        goal: "p95 ≤ 10 ms, 0 errors",
    },
];

pub fn run_all(options: &Options) -> io::Result<Report> {
    raise_open_files();
    let mut rows = Vec::new();
    let mut skipped = Vec::new();
    if options.wants("idle") {
        rows.extend(idle::measure(options)?);
    }
    for connections in [1, 64] {
        let name = format!("bare hop, python, {connections} connections");
        if options.wants(&name) {
            eprintln!("{name} …");
            let bare = BareHop::start()?;
            let request = run_request("", "python", "");
            let tally = load(options, bare.address, &request, connections, Loop::Closed)?;
            rows.push(Row::of(&name, "what the platform is read against", &tally));
        }
    }
    warm(options, &mut rows, &mut skipped)?;
    cold::measure_all(options, &mut rows, &mut skipped)?;
    Ok(Report::new(rows, skipped))
}

fn warm(options: &Options, rows: &mut Vec<Row>, skipped: &mut Vec<String>) -> io::Result<()> {
    let wanted: Vec<&Warm> = WARM.iter().filter(|case| options.wants(case.name)).collect();
    if wanted.is_empty() && !options.wants("async") {
        return Ok(());
    }
    let daemon = Daemon::start(&options.executable, &[])?;
    let mut control = daemon.control()?;
    control.deploy(&json!({ "name": "python", "runtime": "python", "code": { "inline": PYTHON_ECHO } }))?;
    let native = control.deploy(&json!({ "name": "native", "runtime": "cpp", "code": { "inline": NATIVE_ECHO } }));
    if let Err(error) = &native {
        skipped.push(format!("native warm calls: {error}"));
    }
    let mut capacity = 0.0;
    for case in wanted {
        if case.function == "native" && native.is_err() {
            continue;
        }
        eprintln!("{} …", case.name);
        if matches!(case.offered, Offered::TwiceCapacity) && capacity == 0.0 {
            skipped.push(format!("{}: no closed loop was run before it", case.name));
            continue;
        }
        let tally = run(options, &daemon, case, capacity)?;
        if matches!(case.offered, Offered::Closed) {
            capacity = tally.per_second();
        }
        rows.push(Row::of(case.name, case.goal, &tally));
    }
    if options.wants("async") {
        rows.extend(queue::measure(options, &daemon)?);
    }
    Ok(())
}

fn run(options: &Options, daemon: &Daemon, case: &Warm, capacity: f64) -> io::Result<Tally> {
    let request = run_request(&daemon.key, case.function, "");
    let schedule = match case.offered {
        Offered::Closed => Loop::Closed,
        Offered::Rate => Loop::Open { rate: options.rate },
        Offered::TwiceCapacity => Loop::Open { rate: (capacity * 2.0).max(1.0) as u64 },
    };
    load(options, daemon.address, &request, case.connections, schedule)
}

fn load(
    options: &Options,
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    schedule: Loop,
) -> io::Result<Tally> {
    let duration = options.duration();
    Load { address, request, connections, schedule, warm_up: WARM_UP, duration, keep_ids: false }.run()
}

/// Two thousand connections are more than the usual soft limit.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
