//! Following one invocation as server-sent events: live from its feed, else from its record, and resumable by `Last-Event-ID`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::{Record, StoredRecord};
use crate::domain::outcome::Status;
use crate::ports::invocations::Lookup;
use crate::ports::sandbox::Stream as Printed;

use super::Controller;
use super::auth::Caller;
use super::dispatch::running_record;
use super::error::{ApiError, Code, invocation_not_found};
use super::feed::{Event, Feed, QUEUED_ID, RESULT_ID, STARTED_ID};
use super::idempotency::REREAD_EVERY;

/// A comment goes out this often where nothing else does, so that proxies and dead clients are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the end of an invocation waits for the last lines that it printed elsewhere.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Lines of a finished invocation's record that are sent as events.
const RECORD_LINES_MAX: usize = 1000;

pub fn expired() -> ApiError {
    ApiError::new(Code::InvocationExpired, "this invocation's record is not kept any more")
}

/// The event that the client has already, 0 for none.
pub fn last_event_id(headers: &HeaderMap) -> Result<u32, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| ApiError::invalid("Last-Event-ID must be the id of an event of this stream"))
}

impl Controller {
    /// The record of an invocation that the caller may see: from the calls that run here, else from the store.
    pub async fn look_up(&self, caller: &Caller, id: InvocationId) -> Result<Arc<StoredRecord>, ApiError> {
        if let Some(stored) = self.running_here(id).filter(|stored| caller.sees_record(stored)) {
            return Ok(Arc::new(stored));
        }
        self.settled(id).await;
        match self.invocations.get(id).await? {
            Lookup::Found(stored) if caller.sees_record(&stored) => Ok(stored),
            Lookup::Expired { owner, function } if caller.sees(&owner, function) => Err(expired()),
            Lookup::Found(_) | Lookup::Expired { .. } | Lookup::Unknown => Err(invocation_not_found()),
        }
    }

    fn running_here(&self, id: InvocationId) -> Option<StoredRecord> {
        let feed = self.feeds.get(id)?;
        let running = feed.running()?;
        let invocation = &running.invocation;
        Some(StoredRecord::new(invocation.version.owner.clone(), invocation.mode, running_record(running)))
    }

    /// The stream of an invocation that the caller may see. 204 where the client has heard its end already.
    pub async fn events(self: &Arc<Self>, caller: &Caller, id: InvocationId, last: u32) -> Result<Response, ApiError> {
        let stored = self.look_up(caller, id).await?;
        if last == RESULT_ID {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::NO_CONTENT;
            return Ok(response);
        }
        match self.feeds.get(id) {
            Some(feed) => Ok(self.stream(feed, last)),
            None if stored.record.status.is_final() => Ok(finished_stream(&stored.record, last)),
            None => {
                let full = || ApiError::new(Code::NoCapacity, "too many event streams are open; try again shortly");
                Ok(self.stream(self.feeds.open(id).ok_or_else(full)?, last))
            }
        }
    }

    /// Events of `feed` from after `last` to its end.
    pub fn stream(self: &Arc<Self>, feed: Arc<Feed>, last: u32) -> Response {
        feed.follow();
        self.metrics.streams.inc();
        let follower = Follower { controller: self.clone(), feed, last, reread_at: Instant::now(), over: false };
        sse(Body::from_stream(stream::unfold(follower, |mut follower| async move {
            let text = follower.next().await?;
            Some((Ok::<_, std::convert::Infallible>(text), follower))
        })))
    }
}

struct Follower {
    controller: Arc<Controller>,
    feed: Arc<Feed>,
    last: u32,
    reread_at: Instant,
    over: bool,
}

impl Follower {
    /// The next events as they go over the wire; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let silent_until = Instant::now() + KEEP_ALIVE;
        loop {
            let feed = self.feed.clone();
            let changed = feed.changed();
            tokio::pin!(changed);
            // Listen first, look then: what happens in between wakes us.
            changed.as_mut().enable();
            self.look_into_store().await;
            let news = self.feed.since(self.last);
            self.over = news.ended;
            if let Some(event) = news.events.last() {
                self.last = event.id;
                return Some(written(&news.events));
            }
            if self.over {
                return None;
            }
            let until = if feed.running().is_some() { silent_until } else { silent_until.min(self.reread_at) };
            let _ = tokio::time::timeout_at(until, changed).await;
            if Instant::now() >= silent_until {
                return Some(Bytes::from_static(b":\n\n"));
            }
        }
    }

    /// An invocation that runs elsewhere, or only in the queue yet, is known by its record alone.
    async fn look_into_store(&mut self) {
        if self.feed.running().is_some() || self.feed.ended().is_some() {
            return;
        }
        // Lines wake it as well, and say nothing of the end: the last of them does.
        if self.feed.is_coming() && Instant::now() < self.reread_at {
            return;
        }
        self.reread_at = Instant::now() + REREAD_EVERY;
        match self.controller.invocations.get(self.feed.id()).await {
            Ok(Lookup::Found(stored)) if stored.record.status.is_final() => {
                self.await_last_lines().await;
                self.feed.end(Ok(stored));
                self.controller.feeds.retire(self.feed.id(), self.controller.clock.monotonic());
            }
            Ok(Lookup::Found(stored)) if stored.record.status == Status::Running => {
                self.feed.started(stored.record.attempt);
                if let Some(worker) = stored.record.worker_id {
                    self.controller.listen_elsewhere(&self.feed, stored.record.attempt, worker);
                }
            }
            Ok(Lookup::Found(_)) => {}
            Ok(Lookup::Expired { .. } | Lookup::Unknown) => self.feed.end(Err(expired())),
            Err(error) => {
                tracing::warn!(invocation_id = %self.feed.id(), %error, "an event stream could not read its record");
            }
        }
    }
}

impl Follower {
    /// They come by another way than the news of the end.
    async fn await_last_lines(&self) {
        let until = Instant::now() + LAST_LINES;
        while self.feed.is_coming() && Instant::now() < until {
            tokio::time::sleep(LAST_LINES / 50).await;
        }
    }
}

impl Controller {
    /// Has the lines of an attempt at another worker told to its feed, for all who follow it here, to the end of the attempt.
    fn listen_elsewhere(self: &Arc<Self>, feed: &Arc<Feed>, attempt: u32, worker: WorkerId) {
        // What runs in this process tells its lines by itself.
        if worker == self.node_id || !feed.ask_once(attempt) {
            return;
        }
        let Ok(place) = self.elsewhere.clone().try_acquire_owned() else { return feed.asked(attempt, false) };
        let (executor, feed) = (self.executor.clone(), feed.clone());
        tokio::spawn(async move {
            let _place = place;
            let came = executor.follow(feed.id(), worker, feed.clone()).await;
            feed.asked(attempt, came);
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.controller.metrics.streams.dec();
    }
}

/// Whoever resumes after the first lines gets the result only: the record does not know in which order lines were printed.
fn finished_stream(record: &Record, last: u32) -> Response {
    let mut events = VecDeque::new();
    if last < QUEUED_ID {
        events.push_back(Event::queued(record.request_id));
    }
    if last < STARTED_ID && record.started_at.is_some() {
        events.push_back(Event::started(STARTED_ID, record.request_id, record.attempt));
    }
    if last <= STARTED_ID {
        let stdout = record.stdout.lines().map(|line| (Printed::Stdout, line));
        let stderr = record.stderr.lines().map(|line| (Printed::Stderr, line));
        for ((stream, line), id) in stdout.chain(stderr).take(RECORD_LINES_MAX).zip(STARTED_ID + 1..) {
            events.push_back(Event::line(id, stream, line));
        }
    }
    events.push_back(Event::result(record));
    sse(Body::from(written(events.make_contiguous())))
}

fn written(events: &[Event]) -> Bytes {
    let mut text = BytesMut::with_capacity(events.iter().map(|event| event.data.len() + 48).sum());
    for event in events {
        text.extend_from_slice(format!("id: {}\nevent: {}\ndata: ", event.id, event.kind.as_str()).as_bytes());
        text.extend_from_slice(&event.data);
        text.extend_from_slice(b"\n\n");
    }
    text.freeze()
}

fn sse(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The stream takes its connection along, so that the next request's head is timed on a fresh one.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
