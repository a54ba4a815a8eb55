//! Locks in a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::Unavailable;
use crate::ports::clock::Clock;
use crate::ports::locks::{Fence, Locks};

use super::locked;

/// What is known of one lock. It stays when nobody holds it, for its fence; the names are a handful, from our own code.
struct Lock {
    holder: Option<String>,
    held_until: Duration,
    fence: u64,
}

pub(super) struct LocalLocks {
    clock: Arc<dyn Clock>,
    locks: Mutex<HashMap<String, Lock>>,
}

impl LocalLocks {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, locks: Mutex::default() }
    }
}

#[async_trait]
impl Locks for LocalLocks {
    async fn acquire(&self, name: &str, holder: &str, valid_for: Duration) -> Result<Option<Fence>, Unavailable> {
        let now = self.clock.monotonic();
        let mut locks = locked(&self.locks);
        let lock = locks.entry(name.to_owned()).or_insert(Lock { holder: None, held_until: now, fence: 0 });
        match lock.holder.as_deref().filter(|_| lock.held_until > now) {
            Some(other) if other != holder => return Ok(None),
            Some(_) => {}
            None => {
                lock.holder = Some(holder.to_owned());
                lock.fence += 1;
            }
        }
        lock.held_until = now + valid_for;
        Ok(Some(Fence(lock.fence)))
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), Unavailable> {
        if let Some(lock) = locked(&self.locks).get_mut(name).filter(|lock| lock.holder.as_deref() == Some(holder)) {
            lock.holder = None;
        }
        Ok(())
    }
}
