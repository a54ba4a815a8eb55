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
/// Changes remembered: of each function, and of as many that are forgotten before they are asked for.
const CHANGED_MAX: usize = 2 * FUNCTIONS_MAX;
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
    /// Since it was last asked for what has changed.
    changed: bool,
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
    /// Those that are marked as such, and some that were forgotten since.
    changed: Vec<FunctionId>,
}

impl Habits {
    pub fn new(expected_max: usize) -> Self {
        Self {
            functions: Slab::new(),
            by_function: HashMap::new(),
            over: Chain::new(),
            expected: BTreeSet::new(),
            expected_max,
            changed: Vec::new(),
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
        let slot = self.remember(function, IdleTimes::default());
        self.functions[slot].held = 1;
        Some(slot)
    }

    fn remember(&mut self, function: FunctionId, idle: IdleTimes) -> Slot {
        let slot = self.functions.insert(Habit {
            function,
            idle,
            rests_since: None,
            noted_at: Duration::ZERO,
            changed: false,
            held: 0,
            expected: None,
            link: Link::default(),
        });
        self.by_function.insert(function, slot);
        slot
    }

    /// What an earlier process knew of a function. Nothing, where it is known already or there is no place.
    pub fn recall(&mut self, function: FunctionId, idle: IdleTimes) {
        if self.functions.len() < FUNCTIONS_MAX && !self.by_function.contains_key(&function) {
            let slot = self.remember(function, idle);
            self.rest_if_over(slot);
        }
    }

    /// Up to `max` functions of which more is known than when they were last named here.
    pub fn take_changed(&mut self, max: usize) -> Vec<(FunctionId, IdleTimes)> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(function) = self.changed.pop()
        {
            let Some(&slot) = self.by_function.get(&function) else { continue };
            let habit = &mut self.functions[slot];
            if std::mem::take(&mut habit.changed) {
                taken.push((function, habit.idle.clone()));
            }
        }
        taken
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
        if !habit.changed && self.changed.len() < CHANGED_MAX {
            habit.changed = true;
            self.changed.push(habit.function);
        }
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

    #[cfg(test)]
    pub fn held(&self) -> u32 {
        self.functions.iter().map(|(_, habit)| habit.held).sum()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::tests::version_of;
    use super::*;

    fn function(n: usize) -> FunctionId {
        FunctionId(Uuid::from_u128(n as u128))
    }

    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn the_one_over_longest_ago_is_forgotten_first_and_none_that_is_held() {
        let mut habits = Habits::new(10);
        let held = habits.hold(function(0)).unwrap();
        for n in 1..FUNCTIONS_MAX {
            let slot = habits.hold(function(n)).unwrap();
            habits.release(slot);
        }
        let again = habits.hold(function(1)).unwrap();
        habits.release(again);
        assert!(habits.hold(function(FUNCTIONS_MAX)).is_some());
        assert_eq!(habits.functions.len(), FUNCTIONS_MAX);
        assert!(!habits.by_function.contains_key(&function(2)), "the longest over");
        assert_eq!(habits.by_function.get(&function(0)), Some(&held));
        assert!(habits.by_function.contains_key(&function(1)));
    }

    #[test]
    fn where_all_are_held_another_is_not_remembered() {
        let mut habits = Habits::new(10);
        for n in 0..FUNCTIONS_MAX {
            assert!(habits.hold(function(n)).is_some());
        }
        assert!(habits.hold(function(FUNCTIONS_MAX)).is_none());
    }

    #[test]
    fn of_a_burst_one_pause_counts() {
        let mut habits = Habits::new(10);
        let slot = habits.hold(function(1)).unwrap();
        let mut now = minutes(100);
        for _ in 0..600 {
            habits.called(slot, now);
            habits.rests(slot, now);
            now += Duration::from_millis(100);
        }
        assert_eq!(habits.of(slot).idle.noted(), 1);
        habits.called(slot, now + minutes(30));
        assert_eq!((habits.of(slot).idle.noted(), habits.of(slot).idle.at_most(99)), (2, minutes(31)));
    }

    #[test]
    fn what_is_expected_comes_due_once_unless_it_is_retired() {
        let mut habits = Habits::new(1);
        let version = version_of(1, Runtime::Python, 128);
        let slot = habits.hold(function(1)).unwrap();
        habits.rests(slot, minutes(0));
        habits.expect(slot, &version, minutes(27), minutes(34), minutes(1));
        habits.release(slot);
        let other = habits.hold(function(2)).unwrap();
        habits.rests(other, minutes(0));
        habits.expect(other, &version_of(2, Runtime::Python, 128), minutes(5), minutes(6), minutes(1));
        assert_eq!((habits.next_due(minutes(1)), habits.expected()), (Some(minutes(27)), 1));
        assert_eq!(habits.first_due(minutes(26)), None);
        assert_eq!(habits.first_due(minutes(27)), Some(Runtime::Python));
        assert_eq!(habits.take_due(minutes(27)), Some((version.clone(), minutes(7))));
        assert_eq!(habits.expected(), 0);
        let slot = habits.hold(function(1)).unwrap();
        habits.expect(slot, &version, minutes(27), minutes(34), minutes(1));
        habits.retire(version.key());
        assert_eq!(habits.expected(), 0);
    }

    #[test]
    fn what_has_changed_is_named_once_and_comes_back_elsewhere() {
        let mut habits = Habits::new(10);
        let mut now = minutes(100);
        for n in [1, 2, 3] {
            let slot = habits.hold(function(n)).unwrap();
            for _ in 0..n {
                habits.rests(slot, now);
                now += minutes(7);
                habits.called(slot, now);
            }
            habits.release(slot);
        }
        let mut named: Vec<_> = [2, 2].iter().flat_map(|max| habits.take_changed(*max)).collect();
        named.sort_by_key(|(function, _)| *function);
        assert_eq!(named.iter().map(|(_, idle)| idle.noted()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(habits.take_changed(9), []);

        let mut later = Habits::new(10);
        let known = later.hold(function(1)).unwrap();
        named.iter().for_each(|(function, idle)| later.recall(*function, idle.clone()));
        assert_eq!(later.of(known).idle.noted(), 0, "what is seen counts more than what was");
        let slot = later.hold(function(3)).unwrap();
        assert_eq!(later.of(slot).idle, named[2].1);
        assert_eq!((later.held(), later.take_changed(9)), (2, vec![]), "nothing new is known of them");
    }

    #[test]
    fn what_is_recalled_gives_way_like_the_rest() {
        let mut habits = Habits::new(10);
        for n in 0..FUNCTIONS_MAX + 5 {
            habits.recall(function(n), IdleTimes::default());
        }
        assert_eq!(habits.functions.len(), FUNCTIONS_MAX);
        assert!(habits.hold(function(FUNCTIONS_MAX)).is_some());
        assert!(!habits.by_function.contains_key(&function(0)), "recalled first");
    }

    #[test]
    fn a_function_costs_some_three_hundred_bytes() {
        let bytes = size_of::<Option<Habit>>() + size_of::<(FunctionId, Slot)>();
        assert!(bytes < 340, "{bytes}");
    }
}
