//! Load, end to end, on the real executable: `cargo bench --bench load -- --help`.
//!
//! Every number is of **completed** calls whose record says SUCCESS; everything else is counted as refused or failed. Closed
//! loops send the next call when the last is answered; open loops send on a schedule and measure from the scheduled time, so
//! that a stall counts for every call that it held up. The generator runs on the same machine and is part of the result.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its machine and waits on its own thread")]

mod answer;
mod bare;
mod cases;
mod cold;
mod control;
mod daemon;
mod engine;
mod idle;
mod options;
mod queue;
mod report;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = options::Options::parse();
    match cases::run_all(&options) {
        Ok(report) => {
            println!("{}", report.table());
            match report.write(&options.json) {
                Ok(()) => println!("\nwritten to {}", options.json.display()),
                Err(error) => eprintln!("could not write {}: {error}", options.json.display()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
