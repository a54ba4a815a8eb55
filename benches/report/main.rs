//! What the benches found, in one table beside the goals: `cargo bench --bench report -- begin|end|readme`. `make bench` calls it.
//!
//! It measures nothing. `begin` empties what an earlier run left and notes how busy the machine has been; `end` reads the rows, prints,
//! writes JSON and keeps a line of history; `readme` puts the tables of that JSON into the pages.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]
#![allow(clippy::disallowed_methods, reason = "it reads its machine's clock")]

mod goals;
#[path = "../harness/rows.rs"]
#[allow(dead_code, reason = "it writes no rows")]
mod harness_rows;
mod history;
mod machine;
mod micro;
mod pages;
mod rows;
mod run;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Before the first bench.
    Begin,
    /// After the last one.
    End {
        /// Rounds that the load had, to tell.
        #[arg(long)]
        rounds: Option<u32>,
        /// Keep no line of this run: nobody will ask about this build.
        #[arg(long)]
        no_history: bool,
        /// Only single cases were measured: no line of it is kept, and the last whole run stays what the pages are written from.
        #[arg(long)]
        partial: bool,
    },
    /// Write the tables of the last run into the pages that show them.
    Readme,
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Cargo says `--bench` to every bench.
    match Command::parse_from(std::env::args().filter(|argument| argument != "--bench")) {
        Command::Begin => machine::Begin::now().keep(root).context("could not begin"),
        Command::End { rounds, no_history, partial } => end(root, rounds, no_history || partial, partial),
        Command::Readme => pages::write(root, &run::Run::read(root)?),
    }
}

fn end(root: &Path, rounds: Option<u32>, no_history: bool, partial: bool) -> anyhow::Result<()> {
    let run = run::Run::gather(root, rounds)?;
    println!("{}", tables::whole(&run));
    let history = history_file(root);
    println!("{}", history::changes(&history, &run)?);
    if no_history {
        println!("no line of history kept");
    } else {
        history::append(&history, &run)?;
        println!("one line more in {}", history.display());
    }
    println!("written to {}", run.write(root, partial)?.display());
    Ok(())
}

fn history_file(root: &Path) -> PathBuf {
    root.join("benches/history.jsonl")
}
