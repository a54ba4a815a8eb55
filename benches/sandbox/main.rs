//! Sandboxes by themselves: made and ended, given their function, frozen and thawed; and a burst of first calls on the real executable.
//! `cargo bench --bench sandbox -- --only making,specialise,freeze,burst`. As root; what is made here is ended here.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its machine and waits on its own thread")]

mod burst;
#[path = "../harness/lib.rs"]
mod harness;
mod machine;
mod rows;
mod single;

use std::error::Error;

use clap::Parser;

use harness::{answer, control, daemon};

#[derive(clap::Parser, Debug)]
#[command(about = "Makes, specialises, freezes and ends real sandboxes, and prints how long that takes")]
struct Options {
    /// Sandboxes per case.
    #[arg(long, default_value_t = 100)]
    sandboxes: usize,
    /// Only these, separated by commas: making, specialise, freeze, burst.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| part == case)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(single::measure(&options))?;
    if options.wants("burst") {
        burst::measure()?;
    }
    Ok(())
}
