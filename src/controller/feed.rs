//! What there is to hear of invocations while they run: an event log each, bounded, for any number of listeners.
//!
//! ```text
//! queued (1) → started (2) → log (3 …) → result (RESULT_ID)
//! ```
//!
//! Event ids only grow, so `Last-Event-ID` says what a listener has. A feed of a synchronous call is also how `/status` knows that
//! it runs. Feeds hold nothing that the store doesn't, but the lines' order: losing one loses no result.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::{Invocation, Record, StoredRecord};
use crate::domain::time::Timestamp;
use crate::ports::sandbox::{LogSink, Stream};

use super::error::ApiError;

pub const QUEUED_ID: u32 = 1;
pub const STARTED_ID: u32 = 2;
const FIRST_LINE_ID: u32 = 3;
/// The last event's id, above all others whatever their number.
pub const RESULT_ID: u32 = u32::MAX;

/// Lines one feed keeps; older ones are dropped.
const LINES_MAX: usize = 1000;
/// Bytes of them.
const FEED_BYTES_MAX: usize = 256 * 1024;
/// The same where all feeds together are over their bound.
const FEED_BYTES_TIGHT: usize = 4 * 1024;
/// Bytes that all feeds may keep before each is held tight.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A longer line is cut in its event; the record has it whole.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Queued,
    Started,
    Log,
    Result,
    Error,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Queued => "queued",
            EventKind::Started => "started",
            EventKind::Log => "log",
            EventKind::Result => "result",
            EventKind::Error => "error",
        }
    }
}

/// One event; `data` is JSON on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: u32,
    pub kind: EventKind,
    pub data: Bytes,
}

impl Event {
    pub fn new(id: u32, kind: EventKind, data: &impl Serialize) -> Self {
        let mut data = serde_json::to_vec(data).unwrap_or_default();
        // A function's value is passed on as it came, line breaks between its parts included, and those would end the event. Within
        // a text JSON has them escaped.
        data.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        Self { id, kind, data: data.into() }
    }

    pub fn queued(id: InvocationId) -> Self {
        Self::new(QUEUED_ID, EventKind::Queued, &serde_json::json!({ "requestId": id, "status": "QUEUED" }))
    }

    pub fn started(id: u32, invocation: InvocationId, attempt: u32) -> Self {
        let data = serde_json::json!({ "requestId": invocation, "status": "RUNNING", "attempt": attempt });
        Self::new(id, EventKind::Started, &data)
    }

    pub fn line(id: u32, stream: Stream, line: &str) -> Self {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let line = &line[..line.floor_char_boundary(LINE_BYTES_MAX)];
        Self::new(id, EventKind::Log, &serde_json::json!({ "stream": stream, "line": line }))
    }

    pub fn result(record: &Record) -> Self {
        Self::new(RESULT_ID, EventKind::Result, record)
    }
}

/// How an invocation ended, for those who listened.
pub type Ended = Result<Arc<StoredRecord>, ApiError>;

/// A synchronous call that runs here.
#[derive(Clone)]
pub struct Running {
    pub invocation: Arc<Invocation>,
    pub worker: WorkerId,
    pub started_at: Timestamp,
}

#[derive(Default)]
struct State {
    /// Attempts begun.
    attempts: u32,
    lines: VecDeque<Event>,
    line_bytes: usize,
    next_id: u32,
    ended: Option<Ended>,
}

pub struct Feed {
    id: InvocationId,
    running: OnceLock<Running>,
    /// What was to run here runs elsewhere.
    moved: AtomicBool,
    /// Somebody listens or has listened, and may come back.
    followed: AtomicBool,
    state: Mutex<State>,
    /// The last attempt whose lines were asked for elsewhere, and whether they still come.
    asked: AtomicU32,
    coming: AtomicBool,
    changed: Notify,
    all_bytes: Arc<AtomicUsize>,
}

/// What a listener has not heard yet.
pub struct News {
    pub events: Vec<Event>,
    pub ended: bool,
}

impl Feed {
    pub fn new(id: InvocationId, all_bytes: Arc<AtomicUsize>) -> Self {
        let state = State { next_id: FIRST_LINE_ID, ..State::default() };
        Self {
            id,
            running: OnceLock::new(),
            moved: AtomicBool::new(false),
            followed: AtomicBool::new(false),
            state: Mutex::new(state),
            asked: AtomicU32::new(0),
            coming: AtomicBool::new(false),
            changed: Notify::new(),
            all_bytes,
        }
    }

    pub fn id(&self) -> InvocationId {
        self.id
    }

    /// Makes this the feed of a call that starts here and now; `false` if it is one already.
    pub fn begin(&self, running: Running) -> bool {
        self.state().attempts = running.invocation.attempt.max(1);
        self.running.set(running).is_ok()
    }

    /// The call that runs here, unless it has ended.
    pub fn running(&self) -> Option<&Running> {
        self.running.get().filter(|_| !self.moved.load(Ordering::Relaxed) && self.ended().is_none())
    }

    /// The call does not run here after all: what becomes of it is in the store.
    pub fn move_away(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    /// An attempt has begun, here or elsewhere.
    pub fn started(&self, attempt: u32) {
        let mut state = self.state();
        if attempt <= state.attempts {
            return;
        }
        let first = state.attempts == 0;
        state.attempts = attempt;
        if !first {
            let event = Event::started(state.take_id(), self.id, attempt);
            self.keep(&mut state, event);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn end(&self, ended: Ended) {
        self.state().ended.get_or_insert(ended);
        self.changed.notify_waiters();
    }

    pub fn ended(&self) -> Option<Ended> {
        self.state().ended.clone()
    }

    pub fn follow(&self) {
        self.followed.store(true, Ordering::Relaxed);
    }

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    /// Whether the lines of this attempt, which runs elsewhere, are yet to be asked for; if so it is the caller's to do.
    pub fn ask_once(&self, attempt: u32) -> bool {
        let first = self.asked.fetch_max(attempt, Ordering::Relaxed) < attempt;
        if first {
            self.coming.store(true, Ordering::Relaxed);
        }
        first
    }

    /// No more lines come from elsewhere. Where none did, they may be asked for again, at the next look at the store.
    pub fn asked(&self, attempt: u32, came: bool) {
        self.coming.store(false, Ordering::Relaxed);
        if !came {
            // Not where a later attempt was asked for meanwhile.
            let _ = self.asked.compare_exchange(attempt, attempt - 1, Ordering::Relaxed, Ordering::Relaxed);
            return;
        }
        self.changed.notify_waiters();
    }

    /// Lines of an attempt that runs elsewhere are still on their way.
    pub fn is_coming(&self) -> bool {
        self.coming.load(Ordering::Relaxed)
    }

    /// Makes listeners look again.
    pub fn nudge(&self) {
        self.changed.notify_waiters();
    }

    /// Resolves at the next change after it is first polled or enabled.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Everything after the event `last`.
    pub fn since(&self, last: u32) -> News {
        let state = self.state();
        let mut events = Vec::new();
        if last < QUEUED_ID {
            events.push(Event::queued(self.id));
        }
        if last < STARTED_ID && state.attempts > 0 {
            events.push(Event::started(STARTED_ID, self.id, 1));
        }
        events.extend(state.lines.iter().filter(|event| event.id > last).cloned());
        match &state.ended {
            Some(Ok(stored)) if last < RESULT_ID => events.push(Event::result(&stored.record)),
            Some(Err(error)) if last < RESULT_ID => {
                events.push(Event { id: RESULT_ID, kind: EventKind::Error, data: error.body(self.id).into() });
            }
            _ => {}
        }
        News { events, ended: state.ended.is_some() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event and drops the oldest beyond the bounds.
    fn keep(&self, state: &mut State, event: Event) {
        let bytes = event.data.len();
        state.line_bytes += bytes;
        state.lines.push_back(event);
        let all = self.all_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let allowed = if all > ALL_BYTES_MAX { FEED_BYTES_TIGHT } else { FEED_BYTES_MAX };
        while state.lines.len() > LINES_MAX || state.line_bytes > allowed {
            let Some(oldest) = state.lines.pop_front() else { break };
            state.line_bytes -= oldest.data.len();
            self.all_bytes.fetch_sub(oldest.data.len(), Ordering::Relaxed);
        }
    }
}

impl State {
    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        // Below RESULT_ID for ever: what comes after four thousand million lines has the last line's id.
        self.next_id = (id + 1).min(RESULT_ID - 1);
        id
    }
}

impl LogSink for Feed {
    fn line(&self, stream: Stream, line: &str) {
        let mut state = self.state();
        let event = Event::line(state.take_id(), stream, line);
        self.keep(&mut state, event);
        drop(state);
        self.changed.notify_waiters();
    }

    fn is_heard(&self) -> bool {
        self.is_followed()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let kept = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).line_bytes;
        self.all_bytes.fetch_sub(kept, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> (Feed, Arc<AtomicUsize>) {
        let bytes = Arc::new(AtomicUsize::new(0));
        (Feed::new(InvocationId(uuid::Uuid::from_u128(1)), bytes.clone()), bytes)
    }

    fn ids(news: &News) -> Vec<u32> {
        news.events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn a_listener_gets_what_it_has_not_heard() {
        let (feed, _) = feed();
        assert_eq!(ids(&feed.since(0)), [1]);
        feed.started(1);
        feed.line(Stream::Stdout, "one");
        feed.line(Stream::Stderr, "two");
        assert_eq!(ids(&feed.since(0)), [1, 2, 3, 4]);
        assert_eq!(ids(&feed.since(3)), [4]);
        feed.started(2);
        assert_eq!(ids(&feed.since(4)), [5]);
        feed.end(Err(ApiError::invalid("x")));
        let news = feed.since(5);
        assert_eq!(ids(&news), [RESULT_ID]);
        assert!(news.ended);
        assert!(ids(&feed.since(RESULT_ID)).is_empty());
    }

    #[test]
    fn an_endless_print_keeps_to_the_bounds() {
        let (feed, bytes) = feed();
        for _ in 0..3000 {
            feed.line(Stream::Stdout, &"x".repeat(2 * LINE_BYTES_MAX));
        }
        assert!(bytes.load(Ordering::Relaxed) <= FEED_BYTES_MAX);
        for _ in 0..3000 {
            feed.line(Stream::Stdout, "é");
        }
        assert_eq!(feed.since(2).events.len(), LINES_MAX);
        drop(feed);
        assert_eq!(bytes.load(Ordering::Relaxed), 0);
    }
}
