//! What growth costs, each subject on a daemon of its own: `cargo bench --bench growth -- --help`.
//!
//! Many functions called, many idle sandboxes, many registered functions, many records, many connections, large payloads: time, memory
//! and descriptors, before and with them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a bench reads its machine and waits on its own thread")]

mod connections;
mod functions;
#[path = "../harness/lib.rs"]
mod harness;
mod options;
mod payload;
mod records;
mod registered;
mod sandboxes;
mod scene;

use std::io;

use clap::Parser;

fn main() -> io::Result<()> {
    harness::raise_open_files();
    let scene = scene::Scene::new(options::Options::parse());
    functions::measure(&scene)?;
    sandboxes::measure(&scene)?;
    registered::measure(&scene)?;
    records::measure(&scene)?;
    connections::measure(&scene)?;
    payload::measure(&scene)
}
