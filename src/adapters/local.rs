//! What nodes share, within one process: for a node that is alone, and for several in one test.
//!
//! Nothing is kept when the process ends, and nothing of it has to be: claims and heartbeats come again, buckets are full, locks free.

mod buckets;
pub(crate) mod bus;
mod claims;
mod locks;
mod roster;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ports::buckets::Buckets;
use crate::ports::bus::Bus;
use crate::ports::claims::Claims;
use crate::ports::clock::Clock;
use crate::ports::locks::Locks;
use crate::ports::roster::Roster;

/// A handle for each port. Whoever is given the same handle shares what it holds.
#[derive(Clone)]
pub struct Local {
    pub bus: Arc<dyn Bus>,
    pub claims: Arc<dyn Claims>,
    pub roster: Arc<dyn Roster>,
    pub buckets: Arc<dyn Buckets>,
    pub locks: Arc<dyn Locks>,
}

impl Local {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            bus: Arc::new(bus::LocalBus::new()),
            claims: Arc::new(claims::LocalClaims::new(clock.clone())),
            roster: Arc::new(roster::LocalRoster::new(clock.clone())),
            buckets: Arc::new(buckets::LocalBuckets::new(clock.clone())),
            locks: Arc::new(locks::LocalLocks::new(clock)),
        }
    }
}

/// A lock whose holder panicked guards data that each holder leaves whole, so it is taken all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
