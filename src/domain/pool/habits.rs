//! What the pool remembers of functions beyond their sandboxes: how long they pause, and whose next call is expected when.
//!
//! Bounded: a function that has sandboxes or waiters, or is expected, stays; of the others the one that was over longest ago gives
//! way. A function that nothing is remembered of is kept alive for the standard time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{FunctionId, VersionKey};
use crate::domain::policy::idle::IdleTimes;

use super::slab::{Chain, Link, Slab, Slot};

/// Functions remembered, some 300 bytes each.
const FUNCTIONS_MAX: usize = 10_000;
/// Calls closer to each other than this say nothing new about pauses: of a burst one counts.
const BURST: Duration = Duration::from_secs(60);

/// One function's.
#[derive(Debug)]
pub(super) struct Habit {
    function: FunctionId,
    pub idle: IdleTimes,
    /// When its last call ended, while none runs.
    rests_since: Option<Duration>,
    /// When a pause was noted last.
    noted_at: Duration,
    /// Versions in the pool that hold it.
    held: u32,
    expected: Option<Expected>,
    /// Among those that nobody holds.
    link: Link,
}

/// A call that is predicted.
#[derive(Debug)]
struct Expected {
    version: Arc<Version>,
    at: Duration,
    keep: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Habits {
    functions: Slab<Habit>,
    by_function: HashMap<FunctionId, Slot>,
    /// Nobody holds these; the one over longest ago first.
    over: Chain,
    expected: BTreeSet<(Duration, Slot)>,
    expected_max: usize,
}

impl Habits {
    pub fn new(expected_max: usize) -> Self {
        Self {
            functions: Slab::new(),
            by_function: HashMap::new(),
            over: Chain::new(),
            expected: BTreeSet::new(),
            expected_max,
        }
    }

    /// A version of this function comes into the pool; `None`: there is no place to remember it.
    pub fn hold(&mut self, function: FunctionId) -> Option<Slot> {
        if let Some(&slot) = self.by_function.get(&function) {
            if self.is_over(slot) {
                self.over.unlink(&mut self.functions, |habit| &mut habit.link, slot);
            }
            self.functions[slot].held += 1;
            return Some(slot);
        }
        if self.functions.len() >= FUNCTIONS_MAX {
            let oldest = self.over.front()?;
            self.over.unlink(&mut self.functions, |habit| &mut habit.link, oldest);
            let forgotten = self.functions.remove(oldest)?;
            self.by_function.remove(&forgotten.function);
        }
        let slot = self.functions.insert(Habit {
            function,
            idle: IdleTimes::default(),
            rests_since: None,
            noted_at: Duration::ZERO,
            held: 1,
            expected: None,
            link: Link::default(),
        });
        self.by_function.insert(function, slot);
        Some(slot)
    }

    /// A version of it leaves the pool.
    pub fn release(&mut self, slot: Slot) {
        self.functions[slot].held -= 1;
        self.rest_if_over(slot);
    }

    fn is_over(&self, slot: Slot) -> bool {
        self.functions[slot].held == 0 && self.functions[slot].expected.is_none()
    }

    fn rest_if_over(&mut self, slot: Slot) {
        if self.is_over(slot) {
            self.over.push_back(&mut self.functions, |habit| &mut habit.link, slot);
        }
    }

    /// Its last call ended.
    pub fn rests(&mut self, slot: Slot, now: Duration) {
        self.functions[slot].rests_since = Some(now);
    }

    /// A call begins while none ran: whether a pause was noted.
    pub fn called(&mut self, slot: Slot, now: Duration) -> bool {
        let habit = &mut self.functions[slot];
        let Some(since) = habit.rests_since.take() else { return false };
        // A pause in the shadow of a noted one is shorter than BURST: only the shortest is ever left out.
        if habit.noted_at + BURST > now {
            return false;
        }
        habit.idle.note(now.saturating_sub(since));
        habit.noted_at = now;
        true
    }

    pub fn of(&self, slot: Slot) -> &Habit {
        &self.functions[slot]
    }

    /// A call of this version is expected from `from` to `until`, counted from its function's last. Nothing if that has begun.
    pub fn expect(&mut self, slot: Slot, version: &Arc<Version>, from: Duration, until: Duration, now: Duration) {
        let Some(since) = self.functions[slot].rests_since else { return };
        if since + from <= now || self.expected.len() >= self.expected_max {
            return;
        }
        self.forget_expected(slot);
        let expected = Expected { version: version.clone(), at: since + from, keep: until.saturating_sub(from) };
        self.expected.insert((expected.at, slot));
        self.functions[slot].expected = Some(expected);
    }

    fn forget_expected(&mut self, slot: Slot) -> Option<Expected> {
        let expected = self.functions[slot].expected.take()?;
        self.expected.remove(&(expected.at, slot));
        Some(expected)
    }

    /// The runtime of the first whose call is due to be prepared for.
    pub fn first_due(&self, now: Duration) -> Option<Runtime> {
        let (_, slot) = self.expected.first().filter(|(at, _)| *at <= now)?;
        self.functions[*slot].expected.as_ref().map(|expected| expected.version.runtime)
    }

    /// Takes that one: its version, and for how long its call is expected.
    pub fn take_due(&mut self, now: Duration) -> Option<(Arc<Version>, Duration)> {
        let (_, slot) = *self.expected.first().filter(|(at, _)| *at <= now)?;
        let expected = self.forget_expected(slot)?;
        self.rest_if_over(slot);
        Some((expected.version, expected.keep))
    }

    /// A call has come, by itself or earlier than expected.
    pub fn came(&mut self, slot: Slot) {
        // Held by the version that is called, so it isn't over.
        self.forget_expected(slot);
    }

    /// Nothing is expected of a version that is on its way out.
    pub fn retire(&mut self, key: VersionKey) {
        let Some(&slot) = self.by_function.get(&key.function) else { return };
        if self.functions[slot].expected.as_ref().is_some_and(|expected| expected.version.key() == key) {
            self.forget_expected(slot);
            self.rest_if_over(slot);
        }
    }

    pub fn expect_nothing(&mut self) {
        while let Some((_, slot)) = self.expected.first().copied() {
            self.forget_expected(slot);
            self.rest_if_over(slot);
        }
    }

    /// What is due already waits for a start to end, not for a time.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        self.expected.first().map(|(at, _)| *at).filter(|at| *at > now)
    }

    #[cfg(test)]
    pub fn expected(&self) -> usize {
        self.expected.len()
    }
}
