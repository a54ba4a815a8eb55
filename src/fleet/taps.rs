//! What asynchronous invocations print here, for whoever follows them from another process: the last lines of each, and those to come.
//!
//! ```text
//! job ─► Tap (the last lines) ─► Told ─► a controller's stream      a slow one misses lines, which are counted; the record has them all
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prometheus::IntCounter;

use crate::domain::ids::InvocationId;
use crate::ports::executor::LogSinks;
use crate::ports::sandbox::{LogSink, Stream};

use super::called::Told;
use super::wire;

/// Of one invocation, for whoever comes late.
const LINES_MAX: usize = 1000;
const BYTES_MAX: usize = 64 * 1024;
/// Controllers that follow one invocation: each has one stream for all of its callers.
const FOLLOWERS_MAX: usize = 64;

type Known = Mutex<HashMap<InvocationId, Weak<Tap>>>;

/// The invocations of this worker's jobs; as many as it runs at once.
pub(super) struct Taps {
    known: Arc<Known>,
    dropped: IntCounter,
}

/// One attempt's. It is over when this is dropped.
struct Tap {
    id: InvocationId,
    known: Arc<Known>,
    dropped: IntCounter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<(Stream, Box<str>)>,
    bytes: usize,
    followers: Vec<Arc<Told>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Lines for people to read: half a change is one line more or less.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taps {
    pub fn new(dropped: IntCounter) -> Self {
        Self { known: Arc::default(), dropped }
    }

    /// Its last lines and all that follow; `None`: it does not run here, or too many follow it.
    pub fn follow(&self, id: InvocationId) -> Option<Arc<Told>> {
        let tap = lock(&self.known).get(&id)?.upgrade()?;
        let mut state = lock(&tap.state);
        state.followers.retain(is_read);
        if state.followers.len() >= FOLLOWERS_MAX {
            return None;
        }
        let told = Told::new(true);
        state.lines.iter().for_each(|(stream, line)| told.line(*stream, line));
        state.followers.push(told.clone());
        Some(told)
    }
}

/// Somebody beside the tap has it.
fn is_read(told: &Arc<Told>) -> bool {
    Arc::strong_count(told) > 1
}

impl LogSinks for Taps {
    fn sink_for(&self, id: InvocationId, _attempt: u32) -> Option<Arc<dyn LogSink>> {
        let (known, dropped) = (self.known.clone(), self.dropped.clone());
        let tap = Arc::new(Tap { id, known, dropped, state: Mutex::default() });
        lock(&self.known).insert(id, Arc::downgrade(&tap));
        Some(tap)
    }
}

impl LogSink for Tap {
    fn line(&self, stream: Stream, line: &str) {
        let line = &line[..line.floor_char_boundary(super::called::LINE_BYTES_MAX)];
        let mut state = lock(&self.state);
        for told in &state.followers {
            if !told.add_line(stream, line) && is_read(told) {
                self.dropped.inc();
            }
        }
        state.bytes += line.len();
        state.lines.push_back((stream, line.into()));
        while state.lines.len() > LINES_MAX || state.bytes > BYTES_MAX {
            let Some((_, oldest)) = state.lines.pop_front() else { break };
            state.bytes -= oldest.len();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut known = lock(&self.known);
        // A later attempt may have taken the place.
        if known.get(&self.id).is_some_and(|tap| tap.strong_count() == 0) {
            known.remove(&self.id);
        }
        drop(known);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.followers.iter().for_each(|told| told.end(wire::frame(wire::OVER, &[])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_is_kept_and_what_is_sent_keep_to_their_bounds() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let taps = Taps::new(dropped.clone());
        let id = InvocationId(Uuid::from_u128(1));
        assert!(taps.follow(id).is_none());
        let tap = taps.sink_for(id, 1).unwrap();
        let slow = taps.follow(id).unwrap();
        for n in 0..3000 {
            tap.line(Stream::Stdout, &format!("{n} {}", "é".repeat(500)));
        }
        assert!(dropped.get() > 2000, "{}", dropped.get());
        let late = taps.follow(id).unwrap();
        assert!(late.unread() <= BYTES_MAX + 5 * LINES_MAX, "{}", late.unread());
        assert!(slow.unread() <= super::super::called::LINES_BYTES_MAX);
        let gone = dropped.get();
        drop(slow);
        tap.line(Stream::Stderr, "one more");
        assert_eq!(dropped.get(), gone, "nobody misses what nobody reads");
        drop(tap);
        assert!(taps.follow(id).is_none() && lock(&taps.known).is_empty());
    }

    #[test]
    fn as_many_follow_as_may_and_those_gone_make_room() {
        let taps = Taps::new(IntCounter::new("dropped", "dropped").unwrap());
        let id = InvocationId(Uuid::from_u128(1));
        let _tap = taps.sink_for(id, 1);
        let mut followers: Vec<_> = (0..FOLLOWERS_MAX).map(|_| taps.follow(id).unwrap()).collect();
        assert!(taps.follow(id).is_none());
        followers.pop();
        assert!(taps.follow(id).is_some());
    }

    #[test]
    fn an_earlier_attempt_s_end_leaves_the_later_one() {
        let taps = Taps::new(IntCounter::new("dropped", "dropped").unwrap());
        let id = InvocationId(Uuid::from_u128(1));
        let first = taps.sink_for(id, 1);
        let _second = taps.sink_for(id, 2);
        drop(first);
        assert!(taps.follow(id).is_some());
    }
}
