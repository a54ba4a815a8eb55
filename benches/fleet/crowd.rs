//! One controller, one Redis, and a thousand workers that do nothing but live: what they cost while nobody calls, what placing a call
//! among them costs, and what callers see when three in ten stop at once.

use std::io;
use std::time::{Duration, Instant};

use faasd::domain::ids::{FunctionId, VersionKey, WorkerId};
use faasd::domain::placement::{self, Candidate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Options;
use super::harness::control::{Control, run_request};
use super::harness::engine::{Load, Loop, Tally};
use super::harness::process;
use super::harness::rows::Rows;
use super::redis_time;
use super::simulated::Crowd;
use super::support::cluster::Cluster;

const FEW: usize = 10;
/// As many, so that most workers are somebody's first choice.
const FUNCTIONS: usize = 500;
const CODE: &str = "def handler(event, context):\n    return event\n";
const IDLE_FOR: Duration = Duration::from_secs(6);
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// Calls while workers stop: as many a second, over as many connections, for so long.
const RATE: u64 = 200;
const CONNECTIONS: usize = 1024;
const STOP_FOR: Duration = Duration::from_secs(12);
/// When they stop in it.
const STOP_AFTER: Duration = Duration::from_secs(2);
const HELD_UP: Duration = Duration::from_secs(1);

struct Scene<'a> {
    rows: &'a Rows,
    cluster: &'a Cluster,
    control: Control,
    requests: Vec<Vec<u8>>,
    pid: i32,
}

pub fn measure(runtime: &Runtime, rows: &Rows, options: &Options) -> io::Result<()> {
    let mut cluster = runtime.block_on(super::fleet(1, 0).set("LOG__LEVEL", "error").start());
    let pid = cluster.node("controller-0").pid();
    let (address, key) = (cluster.addresses()[0], cluster.admin_key().to_owned());
    let mut control = Control::connect(address, &key)?;
    for n in 0..FUNCTIONS {
        control.deploy(&json!({ "name": format!("f{n}"), "runtime": "python", "code": { "inline": CODE } }))?;
    }
    ranked(rows, options.workers)?;
    let requests = (0..FUNCTIONS).map(|n| run_request(&key, &format!("f{n}"), "")).collect();
    let mut scene = Scene { rows, cluster: &cluster, control, requests, pid };
    scene.idle("no worker")?;
    let workers = options.workers;
    let stopping = workers * 3 / 10;
    let few = Crowd::start(scene.cluster, 0, FEW)?;
    scene.known(FEW)?;
    scene.placed(&format!("call placed among {FEW} workers"), options.duration())?;
    let most = Crowd::start(scene.cluster, FEW, workers - FEW - stopping)?;
    let others = Crowd::start(scene.cluster, workers - stopping, stopping)?;
    scene.known(workers)?;
    scene.idle(&format!("{workers} workers"))?;
    scene.placed(&format!("call placed among {workers} workers"), options.duration())?;
    scene.idle(&format!("{workers} workers, connected"))?;
    scene.told(&format!("told to {workers} workers and a controller"), "{faasd:news}")?;
    scene.told("told to controllers alone", "{faasd:news}:ended")?;
    scene.stop(&format!("{stopping} of {workers} workers killed"), others, Signal::SIGKILL)?;
    // As many again, heard of beside the dead.
    let again = Crowd::start(scene.cluster, workers, stopping)?;
    scene.placed(&format!("call placed among {workers} workers, again"), options.duration())?;
    scene.stop(&format!("{stopping} of {workers} workers silent"), again, Signal::SIGSTOP)?;
    drop((few, most));
    Ok(())
}

/// What choosing a worker costs by itself: among all, and among a version's shortlist as calls do.
fn ranked(rows: &Rows, workers: usize) -> io::Result<()> {
    const TIMES: u32 = 2000;
    const SHORT: usize = 12;
    let worker = |n: usize| WorkerId(Uuid::from_u128((n as u128) << 64 | n as u128));
    let version = VersionKey { function: FunctionId(Uuid::from_u128(7)), number: 1 };
    let all: Vec<Candidate> = (0..workers).map(|n| Candidate { worker: worker(n), calls: 3, capacity: 16 }).collect();
    let listed = placement::shortlist(version, all.iter().map(|one| one.worker), SHORT);
    let short: Vec<Candidate> = all.iter().filter(|one| listed.contains(&one.worker)).copied().collect();
    for (case, among) in [(format!("all of {workers}"), &all), (format!("a shortlist of {SHORT}"), &short)] {
        let begun = Instant::now();
        for _ in 0..TIMES {
            std::hint::black_box(placement::order(std::hint::black_box(version), among, 1));
        }
        let us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
        rows.add(&format!("a worker chosen among {case}: time"), us, "µs")?;
    }
    Ok(())
}

impl Scene<'_> {
    fn address(&self) -> std::net::SocketAddr {
        self.cluster.addresses()[0]
    }

    /// Until the controller lists so many.
    fn known(&mut self, workers: usize) -> io::Result<()> {
        let since = Instant::now();
        loop {
            let (_, page) = self.control.send("GET", "/workers", "", "")?;
            let listed = page["items"].as_array().map_or(0, Vec::len);
            if listed >= workers {
                return Ok(());
            }
            if since.elapsed() > KNOWN_WITHIN {
                return Err(io::Error::other(format!("{listed} of {workers} workers are known")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nobody calls.
    fn idle(&self, with: &str) -> io::Result<()> {
        let redis = self.cluster.redis.as_ref().ok_or_else(|| io::Error::other("no Redis"))?;
        let before = (process::cpu(self.pid), redis_time::processor(redis));
        std::thread::sleep(IDLE_FOR);
        let share = |spent: Duration| spent.as_secs_f64() * 100.0 / IDLE_FOR.as_secs_f64();
        let controller = share(process::cpu(self.pid) - before.0);
        let told = share(redis_time::processor(redis) - before.1);
        let case = format!("idle controller, {with}");
        self.rows.add(&format!("{case}: controller's processor"), controller, "% of one")?;
        self.rows.add(&format!("{case}: controller RSS"), process::rss(self.pid) as f64 / 1e6, "MB")?;
        self.rows.add(&format!("{case}: Redis's processor"), told, "% of one")?;
        self.rows.add(&format!("{case}: Redis's memory"), redis_time::memory(redis) as f64 / 1e6, "MB")
    }

    /// What a message on a channel costs Redis: whoever listens gets a copy. It is in a format that is yet to come, which nobody minds.
    fn told(&self, case: &str, channel: &str) -> io::Result<()> {
        const TIMES: u32 = 300;
        let redis = self.cluster.redis.as_ref().ok_or_else(|| io::Error::other("no Redis"))?;
        let before = redis_time::processor(redis);
        for _ in 0..TIMES {
            redis.ask(&["PUBLISH", channel, "a message as long as one of a call that ended"]);
        }
        // Copies go out behind the answer.
        std::thread::sleep(Duration::from_millis(200));
        let us = (redis_time::processor(redis) - before).as_secs_f64() * 1e6 / f64::from(TIMES);
        self.rows.add(&format!("a message {case}: Redis's processor"), us, "µs")
    }

    /// Calls of many functions, one after the other, none of which has a sandbox anywhere that could be claimed.
    fn placed(&self, case: &str, duration: Duration) -> io::Result<()> {
        // Every link is made, both of its connections.
        let calls = |duration, warm_up| self.load(Loop::Closed, 1, warm_up, duration).run();
        calls(Duration::from_secs(2), Duration::ZERO)?;
        let before = process::cpu(self.pid);
        let begun = Instant::now();
        let tally = calls(duration, Duration::ZERO)?;
        let spent =
            (process::cpu(self.pid) - before).as_secs_f64() * duration.as_secs_f64() / begun.elapsed().as_secs_f64();
        self.tell(case, &tally)?;
        self.rows.add(
            &format!("{case}: controller's processor a call"),
            spent * 1e6 / tally.completed.max(1) as f64,
            "µs",
        )
    }

    fn load(&self, schedule: Loop, connections: usize, warm_up: Duration, duration: Duration) -> Load<'_> {
        Load {
            address: self.address(),
            requests: &self.requests,
            connections,
            schedule,
            warm_up,
            duration,
            keep_ids: false,
        }
    }

    /// They get this signal in the middle of a steady load.
    fn stop(&self, case: &str, crowd: Crowd, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(crowd.pid());
        let stopping = std::thread::spawn(move || {
            std::thread::sleep(STOP_AFTER);
            kill(pid, signal)
        });
        let tally = self.load(Loop::Open { rate: RATE }, CONNECTIONS, Duration::ZERO, STOP_FOR).run()?;
        let stopped = stopping.join().map_err(|_| io::Error::other("the thread that stops workers panicked"))?;
        stopped.map_err(io::Error::from)?;
        self.tell(case, &tally)?;
        let held_up = tally.latency.count_between(HELD_UP.as_nanos() as u64, u64::MAX);
        self.rows.add(&format!("{case}: held up for more than a second"), held_up as f64, "calls")?;
        self.rows.add(&format!("{case}: longest"), tally.latency.max() as f64 / 1e6, "ms")
    }

    fn tell(&self, case: &str, tally: &Tally) -> io::Result<()> {
        for (figure, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(ms) = tally.ms(quantile) {
                self.rows.add(&format!("{case}: {figure}"), ms, "ms")?;
            }
        }
        self.rows.add(&format!("{case}: completed"), tally.completed as f64, "calls")?;
        self.rows.add(&format!("{case}: failed"), (tally.failed + tally.refused) as f64, "calls")
    }
}
