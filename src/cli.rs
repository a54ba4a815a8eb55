//! The command line: the daemon's flags, and the client commands that talk to a daemon over its HTTP API.
//!
//! The client knows the API by its public shapes alone (JSON in, JSON out), as any other client would; it imports nothing of the
//! controller. What a command prints for people goes to stdout as text or a table; `--json` prints the API's own JSON; what a
//! function printed, progress and errors go to stderr.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this room is for")]

pub mod configuration;
mod exit;
mod flags;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Failure;
pub use flags::{ClientFlags, DaemonFlags};

/// What the process's environment holds.
pub type Environment = Vec<(OsString, OsString)>;

/// A function platform in one executable. Without a command it runs the daemon.
#[derive(Debug, Parser)]
#[command(name = "faasd", version, args_conflicts_with_subcommands = true, after_help = exit::HELP)]
pub struct Arguments {
    #[command(flatten)]
    pub daemon: DaemonFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show or check the configuration
    #[command(subcommand)]
    Config(configuration::Command),
}

/// Runs a client command to its end.
pub fn run(command: Command, environment: Environment) -> ExitCode {
    let done = match command {
        Command::Config(command) => configuration::run(command, environment),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }
}
