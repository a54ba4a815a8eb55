//! Load, end to end, on the real executable: `cargo bench --bench load -- --help`. One round; `make bench` runs several.
//!
//! Every number is of **completed** calls whose record says SUCCESS; everything else is counted as refused or failed. Closed
//! loops send the next call when the last is answered; open loops send on a schedule and measure from the scheduled time, so
//! that a stall counts for every call that it held up. The generator runs on the same machine and is part of the result.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its machine and waits on its own thread")]

mod bare;
mod cold;
#[path = "../harness/lib.rs"]
mod harness;
mod hello;
mod idle;
mod mixed;
mod options;
mod overload;
mod queue;
mod references;
mod round;
mod server;
mod warm;

use std::io;

use clap::Parser;

fn main() -> io::Result<()> {
    harness::raise_open_files();
    let options = options::Options::parse();
    let round = round::Round::new(&options);
    idle::measure(&round)?;
    let bare = references::measure(&round)?;
    warm::measure(&round, &bare)?;
    mixed::measure(&round)?;
    overload::measure(&round)?;
    queue::measure(&round)?;
    cold::measure(&round)
}
