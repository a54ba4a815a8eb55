//! The workers that a controller knows of: the roster as it was last read, a link to each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::domain::ids::{VersionKey, WorkerId};
use crate::domain::placement::{self, Candidate};
use crate::ports::clock::Clock;
use crate::ports::executor::{WorkerState, WorkerView};
use crate::ports::roster::Roster;

use super::link::{Link, Ways};

/// Between two readings of the roster.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Workers that a controller calls; the others of a larger fleet are another controller's, or the queue's.
const WORKERS_MAX: usize = 4096;
/// A worker that this many heartbeats did not come from is asked only where nobody else is, long before it counts as dead.
const BEATS_MISSED: u32 = 3;
/// Workers on a version's shortlist: as many as one call or build asks at most, and some that may be full or aside.
const SHORT: usize = 12;
/// Versions with a shortlist; the next one empties the memory.
const SHORTLISTS_MAX: usize = 4096;

#[derive(Default)]
struct Known {
    /// By id.
    views: Vec<WorkerView>,
    links: HashMap<WorkerId, Arc<Link>>,
    /// Of these workers, so that a call ranks few of them and not all.
    shortlists: Mutex<HashMap<VersionKey, Arc<[WorkerId]>>>,
}

impl Known {
    fn view(&self, worker: WorkerId) -> Option<&WorkerView> {
        let at = self.views.binary_search_by_key(&worker, |view| view.id).ok()?;
        self.views.get(at)
    }

    fn shortlist(&self, version: VersionKey) -> Arc<[WorkerId]> {
        // Each change is one step.
        let lists = || self.shortlists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists().get(&version) {
            return list.clone();
        }
        let ids = self.views.iter().map(|view| view.id);
        let list: Arc<[WorkerId]> = placement::shortlist(version, ids, SHORT).into();
        let mut lists = lists();
        if lists.len() >= SHORTLISTS_MAX {
            lists.clear();
        }
        lists.insert(version, list.clone());
        list
    }

    /// Those of `views` that may be asked, as placement knows them.
    fn open<'a>(
        &self,
        views: impl Iterator<Item = &'a WorkerView>,
        tried: &[WorkerId],
        may: impl Fn(&Link) -> bool,
    ) -> Vec<Candidate> {
        let takes = views.filter(|view| view.state == WorkerState::Active && !tried.contains(&view.id));
        let known = takes.filter_map(|view| Some((view, self.links.get(&view.id)?)));
        known
            .filter(|(_, link)| may(link))
            .map(|(view, link)| Candidate {
                worker: view.id,
                // What this controller has sent since the last heartbeat is not in the view.
                calls: (view.active + view.waiting).max(link.calls()),
                capacity: view.capacity,
            })
            .collect()
    }
}

pub(super) struct Links {
    known: RwLock<Known>,
    ways: Arc<Ways>,
    /// The worker of this process, which nobody here calls over the network.
    own: Option<WorkerId>,
    /// How far behind the others' heartbeats one's may be.
    silent_after: Duration,
    /// Somebody was met who is not known.
    sooner: Notify,
}

impl Links {
    pub fn new(ways: Ways, own: Option<WorkerId>, heartbeat: Duration) -> Self {
        let silent_after = heartbeat * BEATS_MISSED;
        Self { known: RwLock::default(), ways: Arc::new(ways), own, silent_after, sooner: Notify::new() }
    }

    /// What the roster says now. Links to who is still there stay as they are.
    pub fn update(&self, mut views: Vec<WorkerView>) {
        views.retain(|view| Some(view.id) != self.own);
        views.sort_unstable_by_key(|view| view.id);
        views.truncate(WORKERS_MAX);
        // By the newest heartbeat rather than by a clock: where none comes at all, nobody is worse than another.
        let newest = views.iter().map(|view| view.last_seen).max();
        let mut links = HashMap::with_capacity(views.len());
        {
            let old = self.read();
            for view in &views {
                let link = old.links.get(&view.id).filter(|link| link.address == view.address).cloned();
                let link =
                    link.unwrap_or_else(|| Arc::new(Link::new(view.id, view.address.clone(), self.ways.clone())));
                link.set_silent(newest.is_some_and(|newest| newest.since(view.last_seen) >= self.silent_after));
                links.insert(view.id, link);
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let same = known.views.iter().map(|view| view.id).eq(views.iter().map(|view| view.id));
        let shortlists = if same { std::mem::take(&mut known.shortlists) } else { Mutex::default() };
        let old = std::mem::replace(&mut *known, Known { views, links, shortlists });
        drop(known);
        // Nobody waits while a large list is freed.
        drop(old);
    }

    /// It is this process's: nobody here calls it over the network.
    pub fn is_own(&self, worker: WorkerId) -> bool {
        Some(worker) == self.own
    }

    pub fn views(&self) -> Vec<WorkerView> {
        self.read().views.clone()
    }

    /// One that is not known yet may have come since the last reading, which is not waited for then.
    pub fn get(&self, worker: WorkerId) -> Option<Arc<Link>> {
        let known = self.read().links.get(&worker).cloned();
        if known.is_none() && Some(worker) != self.own {
            self.sooner.notify_one();
        }
        known
    }

    /// Those that may be called now, in the order in which they are to be asked. Who failed or fell silent comes only where nobody else is.
    pub fn candidates(&self, version: VersionKey, tried: &[WorkerId], most: usize, now: Duration) -> Vec<Arc<Link>> {
        let known = self.read();
        let short = known.shortlist(version);
        let listed = short.iter().filter_map(|worker| known.view(*worker));
        let short = known.open(listed, tried, |link| !link.is_aside(now));
        let order = placement::order_short(version, &short, most).unwrap_or_else(|| {
            let all = |aside: bool| known.open(known.views.iter(), tried, |link| link.is_aside(now) == aside);
            let order = placement::order(version, &all(false), most);
            if order.is_empty() { placement::order(version, &all(true), most) } else { order }
        });
        order.iter().filter_map(|worker| known.links.get(worker).cloned()).collect()
    }

    /// All that could be told something now.
    pub fn living(&self) -> Vec<Arc<Link>> {
        let known = self.read();
        let living = known.views.iter().filter(|view| view.state != WorkerState::Dead);
        living.filter_map(|view| known.links.get(&view.id).cloned()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        // A whole list at each moment.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the roster again and again, while there is somebody who wants it. Where it can't be read, what was known stays: a call finds
/// out soon enough who is gone.
pub(super) async fn follow(links: Weak<Links>, roster: Arc<dyn Roster>, clock: Arc<dyn Clock>) {
    let mut failing_since: Option<Duration> = None;
    loop {
        let read = roster.workers().await;
        let Some(links) = links.upgrade() else { return };
        match read {
            Ok(views) => {
                links.update(views);
                if failing_since.take().is_some() {
                    tracing::info!("the roster of workers can be read again");
                }
            }
            Err(error) => {
                if failing_since.is_none() {
                    failing_since = Some(clock.monotonic());
                    tracing::warn!(%error, "the roster of workers can't be read: going on with those that were known");
                }
            }
        }
        // At most so often, whatever is asked for.
        tokio::time::sleep(READ_EVERY / 10).await;
        let _ = tokio::time::timeout(READ_EVERY * 9 / 10, links.sooner.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::FunctionId;
    use crate::domain::time::Timestamp;
    use crate::fleet::Secret;
    use uuid::Uuid;

    const NOW: Duration = Duration::ZERO;

    fn links() -> Links {
        let secret = Secret::new("what all nodes of this fleet know").unwrap();
        Links::new(Ways { secret, tls: None, frame_bytes_max: 1 }, None, Duration::from_secs(2))
    }

    fn view(n: u128, last_seen: u64) -> WorkerView {
        WorkerView {
            id: WorkerId(Uuid::from_u128(n)),
            address: format!("10.0.0.{n}:8080"),
            state: WorkerState::Active,
            pools: Default::default(),
            active: 0,
            waiting: 0,
            capacity: 8,
            load: 0.0,
            mean_ms: 0.0,
            last_seen: Timestamp(last_seen),
        }
    }

    fn version(n: u128) -> VersionKey {
        VersionKey { function: FunctionId(Uuid::from_u128(n)), number: 1 }
    }

    fn first(links: &Links, n: u128) -> WorkerId {
        links.candidates(version(n), &[], 1, NOW)[0].worker
    }

    #[test]
    fn a_worker_that_fell_silent_is_asked_only_where_nobody_else_is() {
        let links = links();
        links.update((0..50).map(|n| view(n, 100_000)).collect());
        let chosen = first(&links, 1);
        let seen = |at: u64| (0..50).map(move |n| if view(n, 0).id == chosen { view(n, at) } else { view(n, 100_000) });
        links.update(seen(94_001).collect());
        assert_eq!(first(&links, 1), chosen, "two beats may be late");
        links.update(seen(94_000).collect());
        assert_ne!(first(&links, 1), chosen);
        links.update(seen(100_000).collect());
        assert_eq!(first(&links, 1), chosen, "heard again");
        // Nobody is heard: then all are as good as before.
        links.update((0..50).map(|n| view(n, 1)).collect());
        assert_eq!(first(&links, 1), chosen);
        // Alone, it is asked all the same.
        links.update(seen(1).filter(|view| view.id == chosen || view.id.0.as_u128() == 0).collect());
        links.get(view(0, 0).id).unwrap().set_aside(Duration::from_secs(9));
        assert!(!links.candidates(version(1), &[], 1, NOW).is_empty());
    }

    #[test]
    fn who_comes_and_who_goes_is_seen_by_the_next_call() {
        let links = links();
        links.update((0..50).map(|n| view(n, 1)).collect());
        let before: Vec<_> = (0..200).map(|n| first(&links, n)).collect();
        links.update((0..60).map(|n| view(n, 1)).collect());
        let after: Vec<_> = (0..200).map(|n| first(&links, n)).collect();
        assert!(after.iter().any(|worker| worker.0.as_u128() >= 50), "newcomers are called");
        assert!(before.iter().zip(&after).filter(|(before, after)| before == after).count() > 100, "most stay");
        links.update((0..10).map(|n| view(n, 1)).collect());
        assert!((0..200).all(|n| first(&links, n).0.as_u128() < 10));
    }

    #[test]
    fn where_a_shortlist_is_used_up_all_others_are_asked() {
        let links = links();
        links.update((0..50).map(|n| view(n, 1)).collect());
        let order = links.candidates(version(1), &[], 50, NOW);
        assert_eq!(order.len(), 50);
        let tried: Vec<_> = order[..SHORT + 3].iter().map(|link| link.worker).collect();
        assert_eq!(links.candidates(version(1), &tried, 1, NOW)[0].worker, order[SHORT + 3].worker);
    }
}
