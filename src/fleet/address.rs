//! The fleet's address: which of its controllers has it, by a lease, and that this one lets go of it before it ends.
//!
//! ```text
//! ready ─► lease ─► is the address here? ─► take it ─► is the lease still ours? ─► every few seconds again
//! ```
//!
//! `domain::tenure` says what may be done when. A controller that was stopped between its look at the clock and its order to take the
//! address may give that order late, once; whoever has the lease by then finds the address gone and takes it back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Registry;
use tokio::task::JoinHandle;

use crate::domain::tenure::{Answer, LEASE, TAKE_WITHIN, Tenure};
use crate::ports::Unavailable;
use crate::ports::address::{Address, Place, Readiness};
use crate::ports::clock::Clock;
use crate::ports::locks::Locks;

use super::address_metrics::Metrics;

const LOCK: &str = "address";
/// Between two questions of who has not got the lease: how long a lease that was given up lies there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One question to the lock or to the address.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at whether this controller is ready. It steps down when two in turn say no.
const READY_EVERY: Duration = Duration::from_secs(10);
/// How long a controller that ends goes on serving until another one has taken the address.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);
const HAND_OVER_LOOK: Duration = Duration::from_millis(200);

/// What is needed of the world.
pub struct AddressPorts {
    pub address: Arc<dyn Address>,
    pub locks: Arc<dyn Locks>,
    pub readiness: Arc<dyn Readiness>,
    pub clock: Arc<dyn Clock>,
    /// What this controller is called; another name at every start.
    pub holder: String,
}

/// See the module.
pub struct Keeper {
    ports: AddressPorts,
    tenure: Arc<Mutex<Tenure>>,
    metrics: Metrics,
    /// Told once until something is answered again.
    failing: AtomicBool,
}

/// A keeper at work. It ends with the value, and the lease when its time is over.
pub struct Keeping {
    keeper: Arc<Keeper>,
    task: JoinHandle<()>,
}

/// What one keeper remembers from turn to turn.
#[derive(Default)]
struct Turns {
    looked: Option<Duration>,
    /// Looks in turn at which this controller was not ready, the first one of all included.
    unready: u32,
    /// Where the address was seen last.
    place: Option<Place>,
    /// Of the lease that was told last.
    fence: Option<u64>,
}

impl Keeper {
    pub fn new(ports: AddressPorts, registry: &Registry) -> Arc<Self> {
        let tenure = Arc::new(Mutex::new(Tenure::default()));
        let metrics = Metrics::new(registry, tenure.clone(), ports.clock.clone());
        Arc::new(Self { ports, tenure, metrics, failing: AtomicBool::new(false) })
    }

    /// Begins to want the address: when callers are served.
    pub fn start(self: Arc<Self>) -> Keeping {
        let keeper = self.clone();
        let task = tokio::spawn(async move {
            let mut turns = Turns::default();
            loop {
                keeper.turn(&mut turns).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Keeping { keeper: self, task }
    }

    fn now(&self) -> Duration {
        self.ports.clock.monotonic()
    }

    fn tenure(&self) -> Tenure {
        *self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, answer: Answer) {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner).hear(answer);
    }

    async fn turn(&self, turns: &mut Turns) {
        if !self.is_ready(turns).await {
            if turns.fence.take().is_some() {
                tracing::warn!("this controller is not ready: another one may have the fleet's address");
                self.give_up("unready").await;
            }
            return;
        }
        if !self.tenure().is_due(self.now()) {
            return;
        }
        self.ask().await;
        let before = std::mem::replace(&mut turns.fence, self.tenure().holds(self.now()));
        let Some(fence) = turns.fence else {
            if before.is_some() {
                self.metrics.changed("lost");
                tracing::warn!(
                    "the lease of the fleet's address is lost: another controller has it, or nobody can be asked"
                );
            }
            return;
        };
        if before != Some(fence) {
            // What was seen of it under another lease is old.
            turns.place = None;
            self.metrics.changed("granted");
            tracing::info!(fence, "this controller has the lease of the fleet's address");
        }
        self.look(turns, fence).await;
    }

    /// Sees to it that the address is here.
    async fn look(&self, turns: &mut Turns, fence: u64) {
        let looking = self.ports.address.place();
        let Some(place) = self.answer("look for the fleet's address", ASK_WITHIN, looking).await else { return };
        let was_here = turns.place.replace(place) == Some(Place::Here);
        if place == Place::Here {
            return;
        }
        if was_here {
            self.metrics.changed("moved");
            tracing::warn!("somebody moved the fleet's address: this controller, which has its lease, takes it back");
        }
        if !self.tenure().may_take(self.now()) {
            return;
        }
        let taking = self.ports.address.take(place);
        if self.answer("take the fleet's address", TAKE_WITHIN, taking).await.is_none() {
            return;
        }
        turns.place = Some(Place::Here);
        self.metrics.changed("taken");
        tracing::info!(fence, "this controller has the fleet's address");
        // Whatever held this process up meanwhile may have cost it the lease.
        self.ask().await;
        if self.tenure().holds(self.now()) != Some(fence) {
            tracing::warn!(fence, "the fleet's address was taken too late: whoever has the lease takes it back");
        }
    }

    /// Asks for the lease, or for more of it.
    async fn ask(&self) {
        let asked = self.now();
        let asking = self.ports.locks.acquire(LOCK, &self.ports.holder, LEASE);
        self.hear(match self.answer("ask for the lease of the fleet's address", ASK_WITHIN, asking).await {
            Some(Some(fence)) => Answer::Granted { asked, fence: fence.0 },
            Some(None) => Answer::Refused,
            None => Answer::Silent,
        });
    }

    /// `None`: there was none in time, which is told once until there is one again.
    async fn answer<T>(
        &self,
        step: &'static str,
        within: Duration,
        asking: impl Future<Output = Result<T, Unavailable>>,
    ) -> Option<T> {
        let answered = tokio::time::timeout(within, asking).await;
        let answered =
            answered.unwrap_or_else(|_| Err(Unavailable(format!("no answer within {} s", within.as_secs()))));
        let error = match answered {
            Ok(answer) => {
                self.failing.store(false, Ordering::Relaxed);
                return Some(answer);
            }
            Err(error) => error,
        };
        self.metrics.failures.inc();
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(step, %error, "still no answer about the fleet's address");
        } else {
            tracing::warn!(step, %error, "no answer about the fleet's address");
        }
        None
    }

    /// Looks now and then, and before the lease is asked for the first time.
    async fn is_ready(&self, turns: &mut Turns) -> bool {
        let now = self.now();
        if turns.looked.is_none_or(|looked| now >= looked + READY_EVERY) {
            let first = turns.looked.replace(now).is_none();
            let ready = self.ports.readiness.is_ready().await;
            turns.unready = if ready { 0 } else { turns.unready + 1 + u32::from(first) };
        }
        turns.unready < if turns.fence.is_some() { 2 } else { 1 }
    }

    /// Lets others have the lease.
    async fn give_up(&self, why: &'static str) {
        self.hear(Answer::Refused);
        self.metrics.changed(why);
        let releasing = self.ports.locks.release(LOCK, &self.ports.holder);
        // Without an answer it ends by itself.
        let _ = self.answer("give the lease of the fleet's address back", ASK_WITHIN, releasing).await;
    }
}

impl Keeping {
    /// Gives the lease back, and waits a moment until the address is elsewhere: until then callers come here, and are to be served.
    pub async fn let_go(mut self) {
        self.task.abort();
        // Only to know that its turn is over.
        let _ = (&mut self.task).await;
        let keeper = &self.keeper;
        if keeper.tenure().holds(keeper.now()).is_none() {
            return;
        }
        keeper.give_up("let_go").await;
        tracing::info!("the lease of the fleet's address is given back");
        let gone = async {
            while matches!(keeper.ports.address.place().await, Ok(Place::Here)) {
                tokio::time::sleep(HAND_OVER_LOOK).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_WITHIN, gone).await.is_err() {
            tracing::info!("no other controller has taken the fleet's address yet");
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}
