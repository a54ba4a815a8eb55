//! The workers that a controller knows of: the roster as it was last read, a link to each of them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
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

#[derive(Default)]
struct Known {
    views: Vec<WorkerView>,
    links: HashMap<WorkerId, Arc<Link>>,
}

pub(super) struct Links {
    known: RwLock<Known>,
    ways: Arc<Ways>,
    /// The worker of this process, which nobody here calls over the network.
    own: Option<WorkerId>,
    /// Somebody was met who is not known.
    sooner: Notify,
}

impl Links {
    pub fn new(ways: Ways, own: Option<WorkerId>) -> Self {
        Self { known: RwLock::default(), ways: Arc::new(ways), own, sooner: Notify::new() }
    }

    /// What the roster says now. Links to who is still there stay as they are.
    pub fn update(&self, mut views: Vec<WorkerView>) {
        views.retain(|view| Some(view.id) != self.own);
        views.truncate(WORKERS_MAX);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut known.links);
        for view in &views {
            let link = old.remove(&view.id).filter(|link| link.address == view.address);
            let link = link.unwrap_or_else(|| Arc::new(Link::new(view.id, view.address.clone(), self.ways.clone())));
            known.links.insert(view.id, link);
        }
        known.views = views;
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

    /// Those that may be called now, in the order in which they are to be asked. Who failed lately comes only where nobody else is.
    pub fn candidates(&self, version: VersionKey, tried: &[WorkerId], most: usize, now: Duration) -> Vec<Arc<Link>> {
        let known = self.read();
        let of = |aside: bool| -> Vec<Candidate> {
            let takes = |view: &&WorkerView| view.state == WorkerState::Active && !tried.contains(&view.id);
            let open = known.views.iter().filter(takes).filter_map(|view| Some((view, known.links.get(&view.id)?)));
            open.filter(|(_, link)| link.is_aside(now) == aside)
                .map(|(view, link)| Candidate {
                    worker: view.id,
                    // What this controller has sent since the last heartbeat is not in the view.
                    calls: (view.active + view.waiting).max(link.calls()),
                    capacity: view.capacity,
                })
                .collect()
        };
        let mut order = placement::order(version, &of(false), most);
        if order.is_empty() {
            order = placement::order(version, &of(true), most);
        }
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
