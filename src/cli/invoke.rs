//! `faasd invoke` and `faasd status`: run a function, and see what became of it.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Call, Client, LONG, escape};
use super::record;
use super::sse::{Event, Events};
use super::table::pretty;
use super::{ClientFlags, Failure};
use crate::domain::function::name_is_valid;

/// Between two looks at an invocation that is waited for: short calls are seen soon, long ones cost little.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_secs(1);
/// What is read from a file or stdin; the daemon's own limit is lower and says so better.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The function's name or id
    function: String,
    /// The input as JSON; `-` reads it from stdin; without it, null
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// Read the input from a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Return at once with the id of the job
    #[arg(long = "async", conflicts_with = "stream")]
    background: bool,
    /// With --async: wait for the end all the same
    #[arg(long, requires = "background")]
    wait: bool,
    /// Print lines as the function prints them
    #[arg(long)]
    stream: bool,
    /// Invocations with the same key happen once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Passed on to the function's context
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// A job's or request's id
    id: String,
    /// Wait for its end
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    function_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    input_data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_id: Option<&'a str>,
}

/// Runs a function and prints what it returned.
///
/// # Errors
/// [`Failure::Told`] if the function failed; else what the platform could not do.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let payload = payload(&arguments)?;
    let by_name = name_is_valid(&arguments.function);
    let function = arguments.function.as_str();
    let request = RunRequest {
        function_id: (!by_name).then_some(function),
        name: by_name.then_some(function),
        input_data: &payload,
        model_id: arguments.model_id.as_deref(),
    };
    let body =
        serde_json::to_string(&request).map_err(|error| Failure::Usage(format!("the input can't be sent: {error}")))?;
    let mut call = Call { timeout: LONG, ..Call::json("POST", "/run", body) };
    if let Some(key) = &arguments.idempotency_key {
        call.headers.push(("idempotency-key", key.clone()));
    }
    let json = arguments.client.json;
    if arguments.stream {
        call.headers.push(("accept", "text/event-stream".to_owned()));
        return stream(&client, call, json).await;
    }
    if !arguments.background {
        return record::show(&client.fetch(call).await?, json, true);
    }
    call.headers.push(("x-async", "true".to_owned()));
    let accepted = client.fetch(call).await?;
    let id = accepted["jobId"].as_str().unwrap_or_default().to_owned();
    if arguments.wait {
        return record::show(&wait(&client, &id).await?, json, true);
    }
    if json {
        println!("{}", pretty(&accepted));
    } else {
        println!("{id}");
        eprintln!("accepted; see `faasd status {id}`");
    }
    Ok(())
}

/// Prints where an invocation stands.
///
/// # Errors
/// [`Failure::Told`] if it ended otherwise than well.
pub async fn status(arguments: StatusArguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let record =
        if arguments.wait { wait(&client, &arguments.id).await? } else { look(&client, &arguments.id).await? };
    record::show(&record, arguments.client.json, true)
}

async fn look(client: &Client, id: &str) -> Result<Value, Failure> {
    client.fetch(Call::new("GET", format!("/status/{}", escape(id)))).await
}

async fn wait(client: &Client, id: &str) -> Result<Value, Failure> {
    let waited = tokio::time::timeout(LONG, async {
        let mut pause = POLL_FIRST;
        loop {
            let record = look(client, id).await?;
            if record::is_final(&record) {
                return Ok(record);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    });
    let late = |_| {
        Failure::Platform(format!("it has not ended within {} s; look again with `faasd status {id}`", LONG.as_secs()))
    };
    waited.await.map_err(late)?
}

/// Follows one call's events to its result.
async fn stream(client: &Client, call: Call<http_body_util::Full<bytes::Bytes>>, json: bool) -> Result<(), Failure> {
    let mut answer = client.send(call).await?;
    if !answer.status.is_success() {
        return client.read(answer, LONG).await.map(drop);
    }
    let broken = |error: String| Failure::Platform(format!("the stream of {} broke off: {error}", client.url()));
    let mut events = Events::default();
    loop {
        let frame = tokio::time::timeout(LONG, answer.body.frame()).await.map_err(|_| broken("silence".to_owned()))?;
        let Some(frame) = frame else { return Err(broken("it ended before the result".to_owned())) };
        let frame = frame.map_err(|error| broken(error.to_string()))?;
        let Some(piece) = frame.data_ref() else { continue };
        for event in events.push(piece).map_err(broken)? {
            if let Some(record) = tell(&event, json) {
                return record::show(&record, json, false);
            }
        }
    }
}

/// Prints an event; the result is handed back.
fn tell(event: &Event, json: bool) -> Option<Value> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_else(|_| Value::String(event.data.clone()));
    match event.name.as_str() {
        "result" => return Some(data),
        "log" if !json => eprintln!("{}", data["line"].as_str().or(data.as_str()).unwrap_or(&event.data)),
        _ => {}
    }
    None
}

/// The input, checked to be JSON before anything is sent.
fn payload(arguments: &Arguments) -> Result<Box<RawValue>, Failure> {
    let bounded = |source: &mut dyn Read, from: &str| {
        let mut text = String::new();
        let read = source.take(PAYLOAD_BYTES_MAX + 1).read_to_string(&mut text);
        let size = read.map_err(|error| Failure::Usage(format!("{from} can't be read: {error}")))?;
        if size as u64 > PAYLOAD_BYTES_MAX {
            return Err(Failure::Usage(format!("{from} is larger than {PAYLOAD_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    let text = match (&arguments.file, arguments.payload.as_deref()) {
        (Some(path), _) => {
            let from = path.display().to_string();
            let opened = std::fs::File::open(path);
            bounded(&mut opened.map_err(|error| Failure::Usage(format!("{from} can't be read: {error}")))?, &from)?
        }
        (None, Some("-")) => bounded(&mut std::io::stdin(), "stdin")?,
        (None, Some(text)) => text.to_owned(),
        (None, None) => "null".to_owned(),
    };
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Failure::Usage(format!("the input is not JSON ({error}); text needs its quotes: '\"hello\"'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), id: String::new(), data: data.to_owned() }
    }

    #[test]
    fn only_the_result_ends_a_stream() {
        assert_eq!(tell(&event("queued", "{}"), false), None);
        assert_eq!(tell(&event("log", "{\"line\":\"x\"}"), true), None);
        assert_eq!(tell(&event("result", "{\"status\":\"FAILED\"}"), false).unwrap()["status"], "FAILED");
    }
}
