//! A fleet on this machine: `cargo bench --bench fleet -- --help`, as root. What a call across two nodes costs beside one that stays on its
//! own, what goes through the queue, what a node weighs that is connected to all, and how a controller bears a thousand workers.
//!
//! Nodes are real processes over a real Redis; the tests' fast servers stand in for DynamoDB, S3 and SQS, in a process of their own
//! (`cargo build --release --example cloud` makes it). All of it shares the processors with the load generator.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its machine and waits on its own thread")]
#![allow(dead_code, unused_imports, reason = "of the tests' support it needs a part")]

mod calls;
mod crowd;
#[path = "../harness/lib.rs"]
mod harness;
mod idle;
mod redis_time;
mod simulated;
#[path = "../../tests/support"]
mod support {
    pub mod certificates;
    pub mod client;
    pub mod cluster;
    pub mod footprint;
    pub mod partition;
    pub mod redis;
    pub mod slots;
    pub mod sse;
}

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use harness::rows::Rows;
use support::cluster::{Builder, Cluster};

#[derive(clap::Parser, Debug)]
#[command(about = "Drives a fleet of real nodes, and one of many simulated workers")]
struct Options {
    /// Seconds measured per load case.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Simulated workers of the crowd.
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// Only these, separated by commas: direct, queue, steal, idle, crowd.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Begin to count at this worker: the bench starts itself so, to be the workers that it measures.
    #[arg(long, hide = true)]
    simulate: Option<simulated::Span>,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| part == case)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Quiet nodes with as many sandboxes as they have user ids for.
fn fleet(controllers: u32, workers: u32) -> Builder {
    Cluster::of(controllers, workers).set("LOG__LEVEL", "warn").set("POOL__SANDBOXES_MAX", 400)
}

fn main() -> io::Result<()> {
    harness::raise_open_files();
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(span) = &options.simulate {
        return runtime.block_on(simulated::live(span));
    }
    let rows = Rows::of("fleet");
    if options.wants("idle") {
        idle::measure(&runtime, &rows)?;
    }
    if options.wants("direct") {
        calls::direct(&runtime, &rows, &options)?;
    }
    if options.wants("queue") {
        calls::queue(&runtime, &rows, &options)?;
    }
    if options.wants("steal") {
        calls::steal(&runtime, &rows, &options)?;
    }
    if options.wants("crowd") {
        crowd::measure(&runtime, &rows, &options)?;
    }
    Ok(())
}
