//! Calls through a controller to real workers: straight to one, through the queue, and asynchronously.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use super::Options;
use super::harness::PYTHON_ECHO;
use super::harness::control::{Control, request, run_request};
use super::harness::daemon::Daemon;
use super::harness::engine::{Load, Loop, Tally};
use super::harness::rows::Rows;
use super::support::cluster::Cluster;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_faasd");
/// One node and two of them in turn, so many times.
const TURNS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 64;
/// Calls a second of 20 ms each: three quarters of what two workers with two places each can run.
const BUSY_RATE: u64 = 150;
const SLEEPS: &str = "import time\ndef handler(event, context):\n    time.sleep(0.02)\n    return event\n";
const ASYNC: &str = "x-async: true\r\n";

/// The one controller of a fleet, as the load generator sees it.
struct Target {
    address: std::net::SocketAddr,
    key: String,
}

impl Target {
    fn of(cluster: &Cluster) -> Self {
        Self { address: cluster.addresses()[0], key: cluster.admin_key().to_owned() }
    }

    fn control(&self) -> io::Result<Control> {
        Control::connect(self.address, &self.key)
    }

    fn load(&self, headers: &str, connections: usize, warm_up: Duration, duration: Duration) -> io::Result<Tally> {
        self.scheduled(headers, Loop::Closed, connections, warm_up, duration)
    }

    fn scheduled(
        &self,
        headers: &str,
        schedule: Loop,
        connections: usize,
        warm_up: Duration,
        duration: Duration,
    ) -> io::Result<Tally> {
        let requests = &[run_request(&self.key, "python", headers)];
        let keep_ids = !headers.is_empty();
        Load { address: self.address, requests, connections, schedule, warm_up, duration, keep_ids }.run()
    }
}

fn deploy(control: &mut Control, code: &str) -> io::Result<()> {
    control.deploy(&json!({ "name": "python", "runtime": "python", "code": { "inline": code } }))
}

fn ms(tally: &Tally, quantile: f64) -> f64 {
    tally.ms(quantile).unwrap_or(f64::NAN)
}

fn tell(rows: &Rows, case: &str, tally: &Tally) -> io::Result<()> {
    rows.add(&format!("{case}: p50"), ms(tally, 0.5), "ms")?;
    rows.add(&format!("{case}: p99"), ms(tally, 0.99), "ms")?;
    rows.add(&format!("{case}: failed"), (tally.failed + tally.refused) as f64, "calls")
}

/// The same call on one node and across two, in turns.
pub fn direct(runtime: &Runtime, rows: &Rows, options: &Options) -> io::Result<()> {
    const ALONE: &str = "one node, in turn with two, 1 connection";
    const ACROSS: &str = "direct call across two nodes, 1 connection";
    const MANY: &str = "direct calls across two nodes, 64 connections";
    let node = Daemon::start(Path::new(EXECUTABLE), &[])?;
    let alone = Target { address: node.address, key: node.key.clone() };
    let cluster = runtime.block_on(super::fleet(1, 1).start());
    let across = Target::of(&cluster);
    for target in [&alone, &across] {
        deploy(&mut target.control()?, PYTHON_ECHO)?;
        target.load("", 1, Duration::ZERO, WARM_UP)?;
    }
    let pause = Duration::from_millis(200);
    for _ in 0..TURNS {
        let one = alone.load("", 1, pause, options.duration() / 2)?;
        let two = across.load("", 1, pause, options.duration() / 2)?;
        tell(rows, ALONE, &one)?;
        tell(rows, ACROSS, &two)?;
        rows.add(&format!("{ACROSS}: added p50"), ms(&two, 0.5) - ms(&one, 0.5), "ms")?;
        rows.add(&format!("{ACROSS}: added p99"), ms(&two, 0.99) - ms(&one, 0.99), "ms")?;
    }
    let many = across.load("", CONNECTIONS, WARM_UP, options.duration())?;
    rows.add(&format!("{MANY}: completed"), many.per_second(), "/s")?;
    tell(rows, MANY, &many)
}

/// What goes through the queue: every synchronous call where it is said so, and asynchronous ones.
pub fn queue(runtime: &Runtime, rows: &Rows, options: &Options) -> io::Result<()> {
    const QUEUED: &str = "synchronous call through the queue, 1 connection";
    const MANY: &str = "synchronous calls through the queue, 64 connections";
    const ACCEPTS: &str = "async accepts through a controller, durable, 64 connections";
    let builder = super::fleet(1, 1).set("FLEET__DISPATCH", "queue");
    let cluster = runtime.block_on(builder.start());
    let target = Target::of(&cluster);
    let mut control = target.control()?;
    deploy(&mut control, PYTHON_ECHO)?;
    tell(rows, QUEUED, &target.load("", 1, WARM_UP, options.duration())?)?;
    let many = target.load("", CONNECTIONS, WARM_UP, options.duration())?;
    rows.add(&format!("{MANY}: completed"), many.per_second(), "/s")?;
    tell(rows, MANY, &many)?;

    let begun = Instant::now();
    let accepts = target.load(ASYNC, CONNECTIONS, Duration::ZERO, options.duration())?;
    let ended = control.all_ended(&accepts.accepted)?;
    rows.add(&format!("{ACCEPTS}: completed"), accepts.per_second(), "/s")?;
    tell(rows, ACCEPTS, &accepts)?;
    rows.add(&format!("{ACCEPTS}: done"), ended as f64 / begun.elapsed().as_secs_f64(), "/s")?;
    rows.add(&format!("{ACCEPTS}: lost"), (accepts.accepted.len() as u64 - ended) as f64, "jobs")
}

/// A function that is busier than its first worker can bear: some calls wait there, and go where one is free first.
pub fn steal(runtime: &Runtime, rows: &Rows, options: &Options) -> io::Result<()> {
    const BUSY: &str = "150 calls a second of 20 ms on two workers of two places";
    let builder = super::fleet(1, 2).set("POOL__CONCURRENCY_MAX", 2);
    let cluster = runtime.block_on(builder.start());
    let target = Target::of(&cluster);
    let mut control = target.control()?;
    deploy(&mut control, SLEEPS)?;
    let load = |duration| target.scheduled("", Loop::Open { rate: BUSY_RATE }, CONNECTIONS, Duration::ZERO, duration);
    load(WARM_UP)?;
    let before = counted(&mut control, &target.key)?;
    let tally = load(options.duration() * 2)?;
    let after = counted(&mut control, &target.key)?;
    rows.add(&format!("{BUSY}: completed"), tally.per_second(), "/s")?;
    tell(rows, BUSY, &tally)?;
    let share = |of: usize| (after[of] - before[of]) * 100.0 / (tally.completed as f64).max(1.0);
    rows.add(&format!("{BUSY}: stolen"), share(0), "%")?;
    rows.add(&format!("{BUSY}: claims that were stale, of the calls"), share(1), "%")
}

/// Calls stolen, claims that were stale.
fn counted(control: &mut Control, key: &str) -> io::Result<[f64; 2]> {
    let (_, body) = control.exchange(&request(key, "GET", "/metrics", "", ""))?;
    let text = String::from_utf8_lossy(&body);
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0);
    Ok([of("faasd_fleet_stolen_total "), of("faasd_fleet_stale_claims_total ")])
}
