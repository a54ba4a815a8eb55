//! What the benches that start a daemon share: the daemon, the client, the load generator, what a process uses, and where figures go.

#![allow(dead_code, reason = "no bench uses all of it")]

pub mod answer;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod native;
pub mod process;
pub mod rows;
pub mod sample;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub const PYTHON_ECHO: &str = "def handler(event, context):\n    return event\n";
/// Speaks the Runtime API, so that one process serves all calls.
pub const NATIVE_ECHO: &str = include_str!("echo.cpp");

/// Two thousand connections are more than the usual soft limit.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A case counts if the words chosen are in its name, or none were chosen.
pub fn chosen(only: &[String], case: &str) -> bool {
    only.is_empty() || only.iter().any(|part| case.contains(part.as_str()))
}
