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
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;
mod http;
mod invocation;
mod pad;
mod printed;
mod program;
mod service;

use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal, raise};

use pad::Fork;
use service::{Service, Stop};

/// `EX_SOFTWARE`: the fault is the runner's, not the program's.
const FAILED: u8 = 70;
/// What shells add to a signal's number.
const SIGNALLED: u8 = 128;

/// Serves until the daemon hangs up or the program that lives on ends; then ends as the program did, so that the daemon sees
/// its exit code or signal. The exit code to end with. Call it in a process that does nothing else: it blocks SIGTERM and SIGCHLD.
pub fn run(socket: OwnedFd, fork: Fork) -> u8 {
    // The program has the same ids: it is not to read this process's memory or take its descriptors from /proc (proc(5), ptrace(2)).
    let _ = nix::sys::prctl::set_dumpable(false);
    let stop = match Service::new(socket, fork) {
        Ok(mut service) => service.run(),
        Err(error) => Stop::Failed(error),
    };
    match stop {
        Stop::HungUp => 0,
        Stop::Exited(code) => code,
        Stop::Killed(signal) => die_by(signal),
        Stop::Failed(error) => {
            // The function's own stderr: the only place from which a word reaches anybody.
            let _ = writeln!(std::io::stderr(), "the runner failed: {error}");
            FAILED
        }
    }
}

/// Ends this process by `signal`; returns where the signal is ignored here (SIGPIPE).
fn die_by(signal: Signal) -> u8 {
    let _ = SigSet::from(signal).thread_unblock();
    // Twice, because Rust's handler of SIGSEGV and SIGBUS only restores the default action the first time.
    let _ = raise(signal).and_then(|()| raise(signal));
    SIGNALLED.wrapping_add(signal as i32 as u8)
}
