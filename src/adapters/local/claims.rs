//! Claims in a table: a stack for each version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::{VersionKey, WorkerId};
use crate::ports::Unavailable;
use crate::ports::claims::{CLAIMS_MAX, Claims, FORGOTTEN_AFTER};
use crate::ports::clock::Clock;

use super::locked;

/// Versions with claims before those whose claims are all forgotten are cleared away.
const VERSIONS_MAX: usize = 4096;

/// The claims on one version.
#[derive(Default)]
struct Stack {
    /// The newest last.
    claims: Vec<WorkerId>,
    /// Until when each worker's are good.
    good_until: HashMap<WorkerId, Duration>,
}

impl Stack {
    fn is_good(&self, worker: WorkerId, now: Duration) -> bool {
        self.good_until.get(&worker).is_some_and(|until| *until > now)
    }

    fn is_over(&self, now: Duration) -> bool {
        self.good_until.values().all(|until| *until <= now)
    }
}

pub(super) struct LocalClaims {
    clock: Arc<dyn Clock>,
    versions: Mutex<HashMap<VersionKey, Stack>>,
}

impl LocalClaims {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, versions: Mutex::default() }
    }
}

#[async_trait]
impl Claims for LocalClaims {
    async fn offer(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<(), Unavailable> {
        let now = self.clock.monotonic();
        let mut versions = locked(&self.versions);
        if versions.len() >= VERSIONS_MAX && !versions.contains_key(&version) {
            versions.retain(|_, stack| !stack.is_over(now));
        }
        let stack = versions.entry(version).or_default();
        if !stack.is_good(worker, now) {
            // What it offered before is forgotten and does not come back with this.
            stack.claims.retain(|claim| *claim != worker);
        }
        stack.good_until.retain(|_, until| *until > now);
        stack.good_until.insert(worker, now + FORGOTTEN_AFTER);
        stack.claims.extend((0..count.min(CLAIMS_MAX)).map(|_| worker));
        let surplus = stack.claims.len().saturating_sub(CLAIMS_MAX as usize);
        stack.claims.drain(..surplus);
        Ok(())
    }

    async fn take(&self, version: VersionKey) -> Result<Option<WorkerId>, Unavailable> {
        let now = self.clock.monotonic();
        let mut versions = locked(&self.versions);
        let Some(stack) = versions.get_mut(&version) else { return Ok(None) };
        while let Some(worker) = stack.claims.pop() {
            if stack.is_good(worker, now) {
                return Ok(Some(worker));
            }
        }
        if stack.is_over(now) {
            versions.remove(&version);
        }
        Ok(None)
    }

    async fn withdraw(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<u32, Unavailable> {
        let now = self.clock.monotonic();
        let mut versions = locked(&self.versions);
        let Some(stack) = versions.get_mut(&version) else { return Ok(0) };
        if !stack.is_good(worker, now) {
            stack.claims.retain(|claim| *claim != worker);
            return Ok(0);
        }
        let mut withdrawn = 0;
        stack.claims.retain(|claim| {
            let goes = *claim == worker && withdrawn < count;
            withdrawn += u32::from(goes);
            !goes
        });
        Ok(withdrawn)
    }
}
