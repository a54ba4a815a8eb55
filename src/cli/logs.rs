//! `faasd logs`: what functions printed and how they ended, newest last.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Call, Client, escape};
use super::record::is_final;
use super::table::{cell, pretty};
use super::{ClientFlags, Failure};

/// Between two looks for new records.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Records asked for at once while following; where more begin between two looks, the newest are shown.
const FOLLOW_PAGE: usize = 100;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The function's name or id; without it, all functions
    function: Option<String>,
    /// Go on showing what is new
    #[arg(long, short, conflicts_with = "id")]
    follow: bool,
    /// The whole log of one invocation; with its function, also when its result is kept no more
    #[arg(long, value_name = "REQUEST")]
    id: Option<String>,
    /// Only those that ended so: SUCCESS, FAILED, TIMEOUT, CANCELLED, DEAD
    #[arg(long)]
    status: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    pub client: ClientFlags,
}

/// Prints logs.
///
/// # Errors
/// What the daemon refuses.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    if let Some(id) = &arguments.id {
        return one(&client, arguments.function.as_deref(), id, arguments.client.json).await;
    }
    let mut shown: HashSet<String> = HashSet::new();
    let mut since = None;
    let mut limit = arguments.limit as usize;
    loop {
        let mut items = page(&client, &arguments, limit, since.as_deref()).await?;
        items.reverse();
        // While following, an invocation is shown once, when it has ended.
        let due = |item: &&Value| !arguments.follow || (is_final(item) && !shown.contains(&id_of(item)));
        items.iter().filter(due).for_each(|item| tell(item, arguments.client.json));
        if !arguments.follow {
            return Ok(());
        }
        let oldest_running = items.iter().find(|item| !is_final(item));
        if let Some(from) = oldest_running.or(items.last()) {
            since = from["createdAt"].as_str().map(ToOwned::to_owned);
            // What the next page can hold again was in this one.
            shown = items.iter().filter(|item| is_final(item)).map(id_of).collect();
        }
        limit = FOLLOW_PAGE;
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

fn id_of(record: &Value) -> String {
    cell(&record["requestId"])
}

/// One page, newest first.
async fn page(
    client: &Client,
    arguments: &Arguments,
    limit: usize,
    since: Option<&str>,
) -> Result<Vec<Value>, Failure> {
    let route = match &arguments.function {
        Some(function) => format!("/functions/{}/logs", escape(function)),
        None => "/logs".to_owned(),
    };
    let mut path = format!("{route}?limit={limit}");
    if let Some(status) = &arguments.status {
        path.push_str(&format!("&status={}", escape(&status.to_ascii_uppercase())));
    }
    if let Some(since) = since {
        path.push_str(&format!("&startTime={}", escape(since)));
    }
    let answer = client.fetch(Call::new("GET", path)).await?;
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

/// The whole text of one invocation, through the function that it belongs to.
async fn one(client: &Client, function: Option<&str>, id: &str, json: bool) -> Result<(), Failure> {
    let function = match function {
        Some(function) => function.to_owned(),
        None => {
            let record = client.fetch(Call::new("GET", format!("/invocations/{}", escape(id)))).await?;
            cell(&record["functionId"])
        }
    };
    let path = format!("/functions/{}/logs/{}", escape(&function), escape(id));
    let log = client.fetch(Call::new("GET", path)).await?;
    if json {
        println!("{}", pretty(&log));
    } else {
        print!("{}", log["text"].as_str().unwrap_or_default());
    }
    Ok(())
}

/// A heading, then what was printed, indented.
fn tell(record: &Value, json: bool) {
    if json {
        println!("{}", pretty(record));
        return;
    }
    let field = |name: &str| cell(&record[name]);
    println!(
        "{} {} {} v{} {}",
        field("createdAt"),
        field("status"),
        field("functionName"),
        field("version"),
        field("requestId")
    );
    for text in ["stdout", "stderr"].iter().filter_map(|name| record[*name].as_str()) {
        for line in text.lines() {
            println!("  {line}");
        }
    }
    if !record["errorType"].is_null() {
        println!("  {}: {}", field("errorType"), field("errorMessage"));
    }
}
