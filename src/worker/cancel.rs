//! Which invocations are here, waiting or running, and how each is told to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::domain::ids::InvocationId;

/// Why an invocation is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its owner wants it.
    Asked,
    /// This worker ends.
    Draining,
    /// Somebody else holds its lease.
    LeaseLost,
    /// Whoever sent it has a better place for it.
    Withdrawn,
}

/// A call is withdrawn before it begins, or not at all.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Tells one call to stop, once.
#[derive(Default)]
pub(super) struct Cancel {
    why: OnceLock<Why>,
    told: Notify,
    stage: AtomicU8,
}

impl Cancel {
    /// The first reason stands.
    pub fn tell(&self, why: Why) {
        if self.why.set(why).is_ok() {
            self.told.notify_one();
        }
    }

    /// It has its sandbox. `false`: it was withdrawn, and must not run.
    pub fn begin(&self) -> bool {
        self.stage.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire) != Err(WITHDRAWN)
    }

    /// `false`: it has begun.
    fn withdraw(&self) -> bool {
        let withdrawn =
            self.stage.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) != Err(BEGUN);
        if withdrawn {
            self.tell(Why::Withdrawn);
        }
        withdrawn
    }

    pub fn why(&self) -> Option<Why> {
        self.why.get().copied()
    }

    /// Returns when told, also when that was before. One listener.
    pub async fn told(&self) -> Why {
        loop {
            if let Some(why) = self.why() {
                return why;
            }
            self.told.notified().await;
        }
    }
}

#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<InvocationId, Arc<Cancel>>>);

/// An invocation's entry, gone with this value.
pub(super) struct Entry<'a> {
    calls: &'a Calls,
    pub id: InvocationId,
    pub cancel: Arc<Cancel>,
}

impl Calls {
    pub fn enter(&self, id: InvocationId) -> Entry<'_> {
        let cancel = Arc::new(Cancel::default());
        self.lock().insert(id, cancel.clone());
        Entry { calls: self, id, cancel }
    }

    /// `false` if it is not here.
    pub fn tell(&self, id: InvocationId, why: Why) -> bool {
        let found = self.lock().get(&id).cloned();
        found.inspect(|cancel| cancel.tell(why)).is_some()
    }

    /// `false`: it has begun, or is not here.
    pub fn withdraw(&self, id: InvocationId) -> bool {
        let found = self.lock().get(&id).cloned();
        found.is_some_and(|cancel| cancel.withdraw())
    }

    pub fn tell_all(&self, why: Why) {
        self.lock().values().for_each(|cancel| cancel.tell(why));
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InvocationId, Arc<Cancel>>> {
        // Every change is one step, so a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        // A later attempt of the same invocation may have taken the place.
        if calls.get(&self.id).is_some_and(|held| Arc::ptr_eq(held, &self.cancel)) {
            calls.remove(&self.id);
        }
    }
}
