//! Server-sent events, read as they come.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

const EVENT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// `queued`, `started`, `log`, `result`.
    pub kind: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.data))
    }
}

/// A stream of events. Dropping it hangs up.
pub struct Events {
    body: Incoming,
    unread: String,
    ready: VecDeque<Event>,
}

impl Events {
    pub fn new(body: Incoming) -> Self {
        Self { body, unread: String::new(), ready: VecDeque::new() }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let frame = tokio::time::timeout(EVENT_LIMIT, self.body.frame()).await.expect("an event in time")?;
            let frame = frame.expect("the stream is not broken off");
            let Ok(bytes) = frame.into_data() else { continue };
            self.unread.push_str(&String::from_utf8_lossy(&bytes));
            while let Some(end) = self.unread.find("\n\n") {
                let block: String = self.unread.drain(..end + 2).collect();
                self.ready.extend(parse(&block));
            }
        }
    }

    /// Everything up to the end of the stream.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// One block of lines; `None` when it is a comment that keeps the connection open.
fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
    };
    let event = Event { id: field("id"), kind: field("event"), data: field("data") };
    (!event.kind.is_empty()).then_some(event)
}
