//! `faasd admin`: what is made once for a fleet, straight in AWS and not through a daemon.

use aws_sdk_dynamodb::Client;
use clap::Subcommand;

use super::{DaemonFlags, Environment, Failure};
use crate::adapters::aws::client;
use crate::adapters::aws::dynamodb::create_tables;
use crate::config::load;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the tables in DynamoDB that are not there yet, and wait until all can be used
    CreateTables(DaemonFlags),
}

/// Prints a line for each table. Running it again makes nothing twice.
///
/// # Errors
/// [`Failure::Usage`] with every problem of the configuration, else [`Failure::Platform`] with what AWS said.
pub async fn run(command: Command, environment: Environment) -> Result<(), Failure> {
    let Command::CreateTables(flags) = command;
    let config = load::load(flags.config.as_deref(), environment, &flags.values())
        .map_err(|problems| Failure::Usage(format!("the configuration is wrong\n{problems}")))?;
    let client = Client::new(&client::load(&config.aws).await);
    let made = create_tables(&client, &config.aws.table_prefix).await;
    for table in made.map_err(|error| Failure::Platform(error.to_string()))? {
        println!("{} {}", if table.is_new { "created" } else { "is there" }, table.name);
    }
    Ok(())
}
