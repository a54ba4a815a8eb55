//! What every subject needs: the options, daemons, deployments by several connections at once, and rows.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::control::{Control, run_request};
use super::harness::daemon::{Daemon, Settings};
use super::harness::engine::Tally;
use super::harness::rows::Rows;
use super::harness::{PYTHON_ECHO, chosen, process};
use super::options::Options;

/// As many clients deploy at once.
const DEPLOYERS: usize = 8;
/// After the daemon became ready, or after a load, until allocators and the sampler have come to rest.
pub const SETTLE: Duration = Duration::from_secs(1);

pub struct Scene {
    pub options: Options,
    pub rows: Rows,
}

/// Memory and descriptors at one moment.
#[derive(Clone, Copy)]
pub struct Weight {
    pub rss: u64,
    pub tree_pss: u64,
    pub descriptors: u64,
    /// Of the whole machine.
    pub available: u64,
}

impl Scene {
    pub fn new(options: Options) -> Self {
        Self { options: options.fitted(), rows: Rows::of("growth") }
    }

    pub fn wants(&self, case: &str) -> bool {
        chosen(&self.options.only, case)
    }

    pub fn daemon(&self, settings: &Settings<'_>) -> io::Result<Daemon> {
        let daemon = Daemon::start(&self.options.executable, settings)?;
        std::thread::sleep(SETTLE);
        Ok(daemon)
    }

    pub fn tell(&self, case: &str, figure: &str, value: f64, unit: &str) -> io::Result<()> {
        self.rows.add(&format!("{case}: {figure}"), value, unit)
    }

    /// What there is more of than there was, in bytes and descriptors.
    pub fn tell_growth(&self, case: &str, before: Weight, after: Weight) -> io::Result<()> {
        self.tell(case, "daemon RSS before", before.rss as f64 / 1e6, "MB")?;
        self.tell(case, "daemon RSS with them", after.rss as f64 / 1e6, "MB")?;
        self.tell(case, "platform PSS with them", after.tree_pss as f64 / 1e6, "MB")?;
        self.tell(case, "descriptors more", after.descriptors as f64 - before.descriptors as f64, "descriptors")
    }

    pub fn tell_latency(&self, case: &str, tally: &Tally) -> io::Result<()> {
        for (figure, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(ms) = tally.ms(quantile) {
                self.tell(case, figure, ms, "ms")?;
            }
        }
        self.tell(case, "failed", (tally.failed + tally.refused) as f64, "calls")
    }
}

impl Weight {
    pub fn of(daemon: &Daemon) -> Self {
        let pid = daemon.pid();
        Self {
            rss: process::rss(pid),
            tree_pss: process::tree_pss(pid),
            descriptors: process::descriptors(pid),
            available: process::machine_available(),
        }
    }
}

/// Deploys `count` Python echoes, each of its own name, by several clients; how long that took in all.
pub fn deploy_many(daemon: &Daemon, count: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let deployers: Vec<_> = (0..DEPLOYERS)
            .map(|first| {
                scope.spawn(move || {
                    let mut control = daemon.control()?;
                    (first..count).step_by(DEPLOYERS).try_for_each(|nth| control.deploy(&echo(&name(nth))))
                })
            })
            .collect();
        deployers.into_iter().try_for_each(|deployer| deployer.join().map_err(|_| io::ErrorKind::Other)?)
    })?;
    Ok(begun.elapsed())
}

/// Calls each of `count` functions once, one after the other.
pub fn call_each(daemon: &Daemon, control: &mut Control, count: usize) -> io::Result<Tally> {
    let mut tally = Tally::new();
    let begun = Instant::now();
    for nth in 0..count {
        let request = run_request(&daemon.key, &name(nth), "");
        let sent = Instant::now();
        let verdict = control.verdict(&request)?;
        tally.record(verdict, sent.elapsed());
    }
    tally.measured = begun.elapsed();
    Ok(tally)
}

pub fn name(nth: usize) -> String {
    format!("f-{nth}")
}

pub fn echo(name: &str) -> Value {
    json!({ "name": name, "runtime": "python", "code": { "inline": PYTHON_ECHO } })
}

/// How long a request took that must be answered with 200.
pub fn timed(control: &mut Control, method: &str, path: &str) -> io::Result<(Duration, Value)> {
    let sent = Instant::now();
    let (status, body) = control.send(method, path, "", "")?;
    let took = sent.elapsed();
    if status == 200 {
        Ok((took, body))
    } else {
        Err(io::Error::other(format!("{method} {path} was answered {status}: {body}")))
    }
}

/// Milliseconds in the middle of several.
pub fn median_ms(mut took: Vec<Duration>) -> f64 {
    took.sort();
    took.get(took.len() / 2).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
}
