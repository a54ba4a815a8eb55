//! The command line: the daemon's flags, and the client commands that talk to a daemon over its HTTP API.
//!
//! The client knows the API by its public shapes alone (JSON in, JSON out), as any other client would; it imports nothing of the
//! controller. What a command prints for people goes to stdout as text or a table; `--json` prints the API's own JSON; what a
//! function printed, progress and errors go to stderr.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this room is for")]

#[cfg(feature = "aws")]
mod admin;
mod client;
pub mod configuration;
mod deploy;
pub mod doctor;
mod exit;
mod flags;
mod https;
mod invoke;
mod logs;
mod package;
mod record;
mod resources;
mod sse;
mod table;
mod upload;

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
    /// Publish a function: a folder, a source file or a zip archive
    Deploy(deploy::Arguments),
    /// Run a function
    Invoke(invoke::Arguments),
    /// Where an invocation stands, or how it ended
    Status(invoke::StatusArguments),
    /// What functions printed
    Logs(logs::Arguments),
    /// Functions and their versions
    Functions(resources::Functions),
    /// The workers and their pools
    Workers(resources::Workers),
    /// Asynchronous calls that were given up
    DeadLetters(resources::DeadLetters),
    /// API keys
    Keys(resources::Keys),
    /// Who changed what, newest first
    Audit(resources::Audit),
    /// What this machine offers, what it lacks, and how to mend that
    Doctor(doctor::Arguments),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(configuration::Command),
    /// Set up what a fleet shares
    #[cfg(feature = "aws")]
    #[command(subcommand)]
    Admin(admin::Command),
}

/// Runs a client command to its end.
pub fn run(command: Command, environment: Environment) -> ExitCode {
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(speak(command, environment)),
        Err(error) => Err(Failure::Platform(format!("the async runtime can't start: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn speak(command: Command, environment: Environment) -> Result<(), Failure> {
    match command {
        Command::Deploy(arguments) => deploy::run(arguments).await,
        Command::Invoke(arguments) => invoke::run(arguments).await,
        Command::Status(arguments) => invoke::status(arguments).await,
        Command::Logs(arguments) => logs::run(arguments).await,
        Command::Functions(arguments) => resources::functions(arguments).await,
        Command::Workers(arguments) => resources::workers(arguments).await,
        Command::DeadLetters(arguments) => resources::dead_letters(arguments).await,
        Command::Keys(arguments) => resources::keys(arguments).await,
        Command::Audit(arguments) => resources::audit(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments, environment).await,
        Command::Config(command) => configuration::run(command, environment),
        #[cfg(feature = "aws")]
        Command::Admin(command) => admin::run(command, environment).await,
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
