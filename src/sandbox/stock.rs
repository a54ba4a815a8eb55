//! Groups made ahead of need: to make a sandbox's takes the kernel the better part of a millisecond, which no call has to wait for.
//!
//! ```text
//! take: one that lies ready, else one made now ──▶ a moment later, in the background: one after the other, until as many lie ready again
//! ```
//!
//! Each is one sandbox's and never comes back: the next would be charged with what the one before left in memory, and the kernel (6.18)
//! kills at birth what is cloned into a group that was once killed. They lie below the project's own groups like all others, so whatever
//! sweeps those (`cgroup::sweep`) takes them along.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::cgroup::{CgroupError, Group, IoLimits, Layout, Limits};

/// Twice as many as the pool starts at once by default. Each holds some kernel memory and the descriptors that a sandbox has anyway.
const AHEAD_MAX: usize = 8;
/// From the first that was taken to the first that is made for it, and between two: a first call is over by then, and a making in its
/// midst would be on its processor.
const QUIET: Duration = Duration::from_millis(10);

/// What the daemon's sandboxes get their groups from.
#[derive(Debug)]
pub struct Stock {
    layout: Layout,
    /// Of a generic sandbox, which most are to be.
    limits: Limits,
    io: Option<IoLimits>,
    /// `None`: closed.
    ready: Mutex<Option<Vec<Group>>>,
    /// Of this run alone: groups that an earlier one was killed in may still be there, and its launcher may be about to end them.
    run: String,
    made: AtomicU64,
    filling: AtomicBool,
    /// Held while one is made ahead.
    adding: Mutex<()>,
}

impl Stock {
    pub fn new(layout: Layout, limits: Limits, io: Option<IoLimits>) -> Arc<Self> {
        Arc::new(Self {
            layout,
            limits,
            io,
            ready: Mutex::new(Some(Vec::new())),
            run: format!("{:08x}", Uuid::new_v4().as_fields().0),
            made: AtomicU64::new(0),
            filling: AtomicBool::new(false),
            adding: Mutex::new(()),
        })
    }

    /// Groups that nobody has been in, with these limits.
    pub fn take(self: &Arc<Self>, limits: &Limits) -> Result<Group, CgroupError> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Vec::pop);
        let group = ready.map_or_else(|| self.make(), Ok)?;
        if !self.filling.swap(true, Ordering::Relaxed) {
            // Ends by itself, when enough lie ready.
            tokio::spawn(self.clone().fill());
        }
        group.limit(limits)?;
        Ok(group)
    }

    /// None is made ahead any more once this returns.
    pub fn close(&self) {
        drop(self.ready.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.adding.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn fill(self: Arc<Self>) {
        loop {
            tokio::time::sleep(QUIET).await;
            let stock = self.clone();
            if !matches!(tokio::task::spawn_blocking(move || stock.add()).await, Ok(true)) {
                break;
            }
        }
        self.filling.store(false, Ordering::Relaxed);
    }

    /// Makes one ahead. `false`: enough lie ready, or none can be made; whoever needs one is told why.
    fn add(&self) -> bool {
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let wants_more = {
            let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.as_ref().is_some_and(|ready| ready.len() < AHEAD_MAX)
        };
        let Some(group) = wants_more.then(|| self.make()).and_then(Result::ok) else { return false };
        if let Some(ready) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            ready.push(group);
        }
        true
    }

    fn make(&self) -> Result<Group, CgroupError> {
        let name = format!("{}-{}", self.run, self.made.fetch_add(1, Ordering::Relaxed));
        let group = Group::make(&self.layout, &name)?;
        group.limit(&self.limits)?;
        self.io.as_ref().map_or(Ok(()), |io| group.limit_io(io))?;
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::cgroup::Controller;
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 128 << 20, cpu_shares: 74, cpu_quota_us: 100_000, pids: 128 };

    /// Directories stand in for groups.
    fn stock(tree: &Path) -> Arc<Stock> {
        let layout = Layout { v2: Some(tree.to_owned()), on_v2: Controller::ALL.to_vec(), v1: BTreeMap::new() };
        Stock::new(layout, LIMITS, None)
    }

    fn groups(tree: &Path) -> usize {
        std::fs::read_dir(tree).unwrap().count()
    }

    fn ahead(stock: &Stock) -> usize {
        stock.ready.lock().unwrap().as_ref().map_or(0, Vec::len)
    }

    async fn filled(stock: &Stock) {
        while ahead(stock) < AHEAD_MAX || stock.filling.load(Ordering::Relaxed) {
            tokio::time::sleep(QUIET).await;
        }
    }

    #[tokio::test]
    async fn what_was_taken_is_made_again_and_never_given_twice() {
        let tree = tempfile::tempdir().unwrap();
        let stock = stock(tree.path());
        let mut taken = vec![stock.take(&LIMITS).unwrap()];
        assert_eq!(groups(tree.path()), 1, "not in the midst of a start");
        filled(&stock).await;
        assert_eq!(groups(tree.path()), 1 + AHEAD_MAX, "bounded");
        taken.extend((0..AHEAD_MAX + 2).map(|_| stock.take(&LIMITS).unwrap()));
        assert_eq!(groups(tree.path()), taken.len(), "the last two were made when they were needed");
        filled(&stock).await;
        assert_eq!(groups(tree.path()), taken.len() + AHEAD_MAX);
    }

    #[tokio::test]
    async fn who_needs_other_limits_gets_them() {
        let tree = tempfile::tempdir().unwrap();
        let stock = stock(tree.path());
        drop(stock.take(&LIMITS).unwrap());
        filled(&stock).await;
        stock.take(&Limits { memory_bytes: 1 << 30, ..LIMITS }).unwrap();
        let made = std::fs::read_dir(tree.path()).unwrap();
        let limits: Vec<String> =
            made.map(|group| std::fs::read_to_string(group.unwrap().path().join("memory.max")).unwrap()).collect();
        assert_eq!(limits.iter().filter(|limit| *limit == "1073741824").count(), 1, "{limits:?}");
    }

    #[tokio::test]
    async fn when_it_is_closed_nothing_is_made_ahead() {
        let tree = tempfile::tempdir().unwrap();
        let stock = stock(tree.path());
        drop(stock.take(&LIMITS).unwrap());
        stock.close();
        tokio::time::sleep(3 * QUIET).await;
        assert_eq!((groups(tree.path()), stock.add()), (1, false));
    }

    #[tokio::test]
    async fn a_run_never_meets_the_groups_of_another() {
        let tree = tempfile::tempdir().unwrap();
        let runs = [stock(tree.path()), stock(tree.path())];
        let _taken: Vec<Group> =
            runs.iter().flat_map(|run| [run.take(&LIMITS).unwrap(), run.take(&LIMITS).unwrap()]).collect();
        runs.iter().for_each(|run| run.close());
        assert_eq!(groups(tree.path()), 4);
    }

    /// A kernel that refuses is asked again by whoever needs groups, and not all the time.
    #[tokio::test]
    async fn what_can_not_be_made_is_told_to_who_needs_it() {
        let stock = stock(Path::new("/proc/no-groups-here"));
        assert!(stock.take(&LIMITS).is_err());
        assert!(!stock.add() && !stock.filling.load(Ordering::Relaxed));
    }
}
