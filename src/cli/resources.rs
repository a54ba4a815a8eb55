//! Commands that list, show and change what a daemon keeps: functions, workers, keys, dead letters, and the log of changes.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Call, Client, escape};
use super::table::{cell, pretty, render, rows};
use super::{ClientFlags, Failure};

/// Items asked for in one page; the commands read on until there are no more, or [`ITEMS_MAX`].
const PAGE: usize = 100;
/// A terminal and a script's memory have bounds too.
const ITEMS_MAX: usize = 100_000;

#[derive(Debug, Args)]
pub struct Functions {
    #[command(subcommand)]
    command: Option<FunctionsCommand>,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Subcommand)]
enum FunctionsCommand {
    /// All functions (what is done without a command)
    List,
    /// One function, by name or id
    Show { function: String },
    /// Its versions, newest first
    Versions { function: String },
    /// Give it the memory that its last calls ask for, as its next version
    Resize {
        function: String,
        /// This much, whatever they ask for
        #[arg(long, value_name = "MB")]
        memory: Option<u32>,
    },
    /// Delete it; calls that run finish
    Delete { function: String },
}

#[derive(Debug, Args)]
pub struct Workers {
    #[command(subcommand)]
    command: Option<WorkersCommand>,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Subcommand)]
enum WorkersCommand {
    /// All workers and their pools (what is done without a command)
    List,
    /// Let it take no new work; what runs there finishes, what is warm stays
    Cordon { id: String },
    /// Let it take work again
    Uncordon { id: String },
    /// Let it finish what runs, give the rest back, and end
    Drain { id: String },
}

#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key; its secret is shown this once
    Create {
        /// What it is for; with --function it may be left out
        #[arg(required_unless_present = "function")]
        name: Option<String>,
        /// Whose functions it sees; without it, yours
        #[arg(long)]
        owner: Option<String>,
        /// What it may do: admin, deploy, invoke, read; may be repeated or separated by commas [default: invoke,read]
        #[arg(long = "scope", value_delimiter = ',', conflicts_with = "function", value_parser = ["admin", "deploy", "invoke", "read"])]
        scopes: Vec<String>,
        /// An access key: may run this one function, by name or id, and follow what it ran
        #[arg(long)]
        function: Option<String>,
        /// It ends after this: 30d, 12h
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        /// A sentence for those who list keys
        #[arg(long)]
        description: Option<String>,
    },
    /// The keys you may manage, without their secrets
    List,
    /// End a key at once
    Revoke { id: String },
}

#[derive(Debug, Args)]
pub struct Audit {
    /// So many of the newest entries
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    command: Option<DeadLettersCommand>,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// All of them, newest first (what is done without a command)
    List,
    /// One of them, by its job's id
    Show { id: String },
    /// Queue its job again, as a new invocation
    Replay { id: String },
}

/// # Errors
/// What the daemon refuses.
pub async fn functions(arguments: Functions) -> Result<(), Failure> {
    const COLUMNS: Columns = Columns {
        headings: &["NAME", "RUNTIME", "MB", "TIMEOUT MS", "VERSION", "UPDATED", "ID"],
        fields: &["name", "runtime", "memoryMb", "timeoutMs", "version", "updatedAt", "functionId"],
    };
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    let path = |function: &str| format!("/functions/{}", escape(function));
    match arguments.command.unwrap_or(FunctionsCommand::List) {
        FunctionsCommand::List => list(&client, "/functions", &COLUMNS, json).await,
        FunctionsCommand::Show { function } => show(&client, &path(&function)).await,
        FunctionsCommand::Versions { function } => {
            const VERSIONS: Columns = Columns {
                headings: &["VERSION", "RUNTIME", "MB", "TIMEOUT MS", "CREATED", "DESCRIPTION"],
                fields: &["version", "runtime", "memoryMb", "timeoutMs", "updatedAt", "description"],
            };
            list(&client, &format!("{}/versions", path(&function)), &VERSIONS, json).await
        }
        FunctionsCommand::Resize { function, memory } => resize(&client, &path(&function), memory, json).await,
        FunctionsCommand::Delete { function } => {
            let answer = client.fetch(Call::new("DELETE", path(&function))).await?;
            tell(&answer, json, &format!("deleted {function}"));
            Ok(())
        }
    }
}

async fn resize(client: &Client, path: &str, memory_mb: Option<u32>, json: bool) -> Result<(), Failure> {
    let before = client.fetch(Call::new("GET", path)).await?;
    let advice = &before["advice"];
    let Some(memory_mb) = memory_mb.map(u64::from).or_else(|| advice["recommendedMemoryMb"].as_u64()) else {
        let name = cell(&before["name"]);
        return Err(Failure::Usage(format!(
            "there is nothing to say about the memory of {name}: its last calls are well served, or fewer than 20; say how \
             much it is to have with --memory"
        )));
    };
    if before["memoryMb"] == memory_mb {
        tell(&before, json, &format!("{} stays at {memory_mb} MB: {}", cell(&before["name"]), cell(&advice["tip"])));
        return Ok(());
    }
    let answer = client.fetch(Call::json("PATCH", path, json!({ "memoryMb": memory_mb }).to_string())).await?;
    let (name, old, version) = (cell(&before["name"]), cell(&before["memoryMb"]), cell(&answer["version"]));
    tell(&answer, json, &format!("{name} has {memory_mb} MB instead of {old} from version {version} on"));
    Ok(())
}

/// # Errors
/// What the daemon refuses.
pub async fn workers(arguments: Workers) -> Result<(), Failure> {
    const COLUMNS: Columns = Columns {
        headings: &["ID", "ADDRESS", "STATE", "ACTIVE", "WAITING", "CAPACITY", "LOAD", "LAST SEEN"],
        fields: &["id", "address", "state", "active", "waiting", "capacity", "load", "lastSeen"],
    };
    let client = Client::new(&arguments.client)?;
    let (id, order, done) = match arguments.command.unwrap_or(WorkersCommand::List) {
        WorkersCommand::List => return list(&client, "/workers", &COLUMNS, arguments.client.json).await,
        WorkersCommand::Cordon { id } => (id, "cordon", "takes no new work"),
        WorkersCommand::Uncordon { id } => (id, "uncordon", "takes work again"),
        WorkersCommand::Drain { id } => (id, "drain", "drains, and ends when it has"),
    };
    let answer = client.fetch(Call::new("POST", format!("/workers/{}/{order}", escape(&id)))).await?;
    tell(&answer, arguments.client.json, &format!("{id} {done}"));
    Ok(())
}

/// # Errors
/// What the daemon refuses.
pub async fn keys(arguments: Keys) -> Result<(), Failure> {
    const COLUMNS: Columns = Columns {
        headings: &["ID", "NAME", "OWNER", "SCOPES", "FUNCTION", "CREATED", "EXPIRES", "LAST USED"],
        fields: &["id", "name", "owner", "scopes", "functionId", "createdAt", "expiresAt", "lastUsedAt"],
    };
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    match arguments.command {
        KeysCommand::List => list(&client, "/keys", &COLUMNS, json).await,
        KeysCommand::Create { name, owner, scopes, function, expires_in, description } => {
            let mut body = match &function {
                Some(function) => {
                    let name = name.unwrap_or_else(|| format!("access to {function}"));
                    json!({ "name": name, "functionId": function })
                }
                None if scopes.is_empty() => json!({ "name": name, "scopes": ["invoke", "read"] }),
                None => json!({ "name": name, "scopes": scopes }),
            };
            let ends = expires_in.map(|time| humantime::format_rfc3339_millis(now() + time).to_string());
            for (field, value) in [("owner", owner), ("expiresAt", ends), ("description", description)] {
                if let Some(value) = value {
                    body[field] = Value::String(value);
                }
            }
            let key = client.fetch(Call::json("POST", "/keys", body.to_string())).await?;
            if json {
                println!("{}", pretty(&key));
            } else {
                println!("{}", key["secret"].as_str().unwrap_or_default());
                eprintln!("key {} made; its secret, above, is not shown again", key["id"].as_str().unwrap_or_default());
            }
            Ok(())
        }
        KeysCommand::Revoke { id } => {
            let answer = client.fetch(Call::new("DELETE", format!("/keys/{}", escape(&id)))).await?;
            tell(&answer, json, &format!("revoked {id}"));
            Ok(())
        }
    }
}

/// # Errors
/// What the daemon refuses.
pub async fn dead_letters(arguments: DeadLetters) -> Result<(), Failure> {
    const COLUMNS: Columns = Columns {
        headings: &["JOB", "FUNCTION", "ATTEMPTS", "DIED", "REASON"],
        fields: &["jobId", "functionId", "attempts", "diedAt", "reason"],
    };
    let client = Client::new(&arguments.client)?;
    let json = arguments.client.json;
    let path = |id: &str| format!("/dead-letters/{}", escape(id));
    match arguments.command.unwrap_or(DeadLettersCommand::List) {
        DeadLettersCommand::List => list(&client, "/dead-letters", &COLUMNS, json).await,
        DeadLettersCommand::Show { id } => show(&client, &path(&id)).await,
        DeadLettersCommand::Replay { id } => {
            let answer = client.fetch(Call::new("POST", format!("{}/replay", path(&id)))).await?;
            let job = answer["jobId"].as_str().unwrap_or_default();
            tell(&answer, json, &format!("queued again as {job}; see `faasd status {job}`"));
            Ok(())
        }
    }
}

/// # Errors
/// What the daemon refuses.
pub async fn audit(arguments: Audit) -> Result<(), Failure> {
    const COLUMNS: Columns = Columns {
        headings: &["SEQ", "AT", "ACTION", "OUTCOME", "OWNER", "KEY", "SUBJECT", "ADDRESS", "NAME", "OBJECT", "CODE"],
        fields: &[
            "seq",
            "at",
            "action",
            "outcome",
            "owner",
            "keyName",
            "subject",
            "address",
            "objectName",
            "objectId",
            "code",
        ],
    };
    let client = Client::new(&arguments.client)?;
    list_up_to(&client, "/audit", &COLUMNS, arguments.client.json, arguments.limit).await
}

/// The end of a key is told as a time of day, which the client's clock makes of a duration.
#[allow(clippy::disallowed_methods, reason = "a client command has no node whose clock it could ask")]
fn now() -> SystemTime {
    SystemTime::now()
}

struct Columns {
    headings: &'static [&'static str],
    fields: &'static [&'static str],
}

/// Every page of a listing, as a table or as one JSON array.
async fn list(client: &Client, path: &str, columns: &Columns, json: bool) -> Result<(), Failure> {
    list_up_to(client, path, columns, json, ITEMS_MAX).await
}

async fn list_up_to(client: &Client, path: &str, columns: &Columns, json: bool, most: usize) -> Result<(), Failure> {
    let mut items: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let from = cursor.map(|cursor| format!("&cursor={}", escape(&cursor))).unwrap_or_default();
        let mut answer =
            client.fetch(Call::new("GET", format!("{path}?limit={}{from}", PAGE.min(most.max(1))))).await?;
        // Short listings may come as a bare array.
        let page = if answer.is_array() { answer.take() } else { answer["items"].take() };
        if let Value::Array(page) = page {
            items.extend(page);
        }
        cursor = answer["nextCursor"].as_str().map(ToOwned::to_owned);
        if cursor.is_none() || items.len() >= most {
            break;
        }
    }
    items.truncate(most);
    if json {
        println!("{}", pretty(&Value::Array(items)));
    } else {
        print!("{}", render(columns.headings, &rows(&items, columns.fields)));
    }
    Ok(())
}

async fn show(client: &Client, path: &str) -> Result<(), Failure> {
    println!("{}", pretty(&client.fetch(Call::new("GET", path)).await?));
    Ok(())
}

/// A change that was made: the answer for programs, a sentence for people.
fn tell(answer: &Value, json: bool, sentence: &str) {
    if json { println!("{}", pretty(answer)) } else { println!("{sentence}") }
}
