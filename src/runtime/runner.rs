//! The native runner: what `faasd` is inside a sandbox of compiled code, started as `faasd sandbox-runner`. It stands between the
//! daemon's protocol on descriptor 3 and a program that knows only the Lambda Runtime API, or only its input and output.
//!
//! ```text
//! Generic ─SPECIALISE→ provided: Starting ─GET next→ Idle ⇄ Running       (the program lives on between calls)
//!                      go, cpp:  Idle ⇄ Running, the program started per call; one that asks for `next` lives on from then
//!                      build:    Idle ⇄ Running, the compiler
//! ```
//!
//! One thread, one `poll` loop, blocking writes: whoever doesn't read what it asked for harms its own sandbox only.

mod api;
mod build;
mod daemon;
mod http;
mod printed;
mod program;
mod service;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Serves until the daemon hangs up or the program that lives on ends; then ends as the program did, so that the daemon sees
/// its exit code or signal. Call it first thing in a process: it blocks SIGTERM and SIGCHLD.
pub fn run(socket: OwnedFd) -> ExitCode {
    match service::Service::new(socket).and_then(|mut service| service.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the runner failed: {error}");
            ExitCode::from(70)
        }
    }
}
