//! `faasd config`: the configuration in force, and what is wrong with it.

use clap::Subcommand;

use super::{DaemonFlags, Environment, Failure};
use crate::config::load;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check every layer; print the effective configuration, or each problem in a line
    Check(DaemonFlags),
    /// Print the effective configuration as TOML
    Show(DaemonFlags),
}

/// Prints the effective configuration, secrets hidden.
///
/// # Errors
/// [`Failure::Usage`] with every problem.
pub fn run(command: Command, environment: Environment) -> Result<(), Failure> {
    let (Command::Check(flags) | Command::Show(flags)) = command;
    let config = load::load(flags.config.as_deref(), environment, &flags.values())
        .map_err(|problems| Failure::Usage(format!("the configuration is wrong\n{problems}")))?;
    print!("{}", load::render(&config));
    Ok(())
}
