//! `faasd admin`: what is made for a fleet straight in AWS and not through a daemon: its tables, and a key where nobody has one.

use aws_sdk_dynamodb::Client;
use clap::Subcommand;

use super::{DaemonFlags, Environment, Failure};
use crate::adapters::aws::client;
use crate::adapters::aws::dynamodb::{create_tables, keys};
use crate::adapters::system_clock::SystemClock;
use crate::config::{Backend, Config, load};
use crate::controller::auth::{ADMIN_OWNER, new_key};
use crate::domain::ids::Owner;
use crate::domain::key::Scope;
use crate::ports::clock::Clock;
use crate::ports::keys::KeyStore;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the tables in DynamoDB that are not there yet, and wait until all can be used
    CreateTables(DaemonFlags),
    /// Make an API key with every right straight in a fleet's table, without a key: for whoever may write there, as controllers may
    CreateKey {
        /// What it is called in the list of keys
        name: String,
        #[command(flatten)]
        flags: DaemonFlags,
    },
}

/// # Errors
/// [`Failure::Usage`] with every problem of the configuration, else [`Failure::Platform`] with what AWS said.
pub async fn run(command: Command, environment: Environment) -> Result<(), Failure> {
    match command {
        Command::CreateTables(flags) => tables(&loaded(&flags, environment)?).await,
        Command::CreateKey { name, flags } => key(&loaded(&flags, environment)?, name).await,
    }
}

fn loaded(flags: &DaemonFlags, environment: Environment) -> Result<Config, Failure> {
    load::load(flags.config.as_deref(), environment, &flags.values())
        .map_err(|problems| Failure::Usage(format!("the configuration is wrong\n{problems}")))
}

/// Prints a line for each table. Running it again makes nothing twice.
async fn tables(config: &Config) -> Result<(), Failure> {
    let client = Client::new(&client::load(&config.aws).await);
    let made = create_tables(&client, &config.aws.table_prefix).await;
    for table in made.map_err(|error| Failure::Platform(error.to_string()))? {
        println!("{} {}", if table.is_new { "created" } else { "is there" }, table.name);
    }
    Ok(())
}

/// Prints the key's secret, which is kept nowhere.
async fn key(config: &Config, name: String) -> Result<(), Failure> {
    if config.backend != Backend::Aws {
        let sentence =
            "only the keys of a fleet (backend = \"aws\") can be made so: a single node has its own in admin.key";
        return Err(Failure::Usage(sentence.to_owned()));
    }
    let client = Client::new(&client::load(&config.aws).await);
    let (key, secret) = new_key(name, Owner::new(ADMIN_OWNER), vec![Scope::Admin], SystemClock::new().now());
    let added = keys(client, &config.aws.table_prefix).add(&key).await;
    added.map_err(|error| Failure::Platform(error.to_string()))?;
    println!("{secret}");
    Ok(())
}
