//! The roster in a table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::domain::ids::WorkerId;
use crate::ports::Unavailable;
use crate::ports::clock::Clock;
use crate::ports::executor::WorkerView;
use crate::ports::roster::{Roster, WORKERS_MAX, as_seen, full};

use super::locked;

pub(super) struct LocalRoster {
    clock: Arc<dyn Clock>,
    heard: Mutex<BTreeMap<WorkerId, WorkerView>>,
}

impl LocalRoster {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, heard: Mutex::default() }
    }
}

#[async_trait]
impl Roster for LocalRoster {
    async fn beat(&self, view: &WorkerView) -> Result<(), Unavailable> {
        let view = WorkerView { last_seen: self.clock.now(), ..view.clone() };
        let mut heard = locked(&self.heard);
        if heard.len() >= WORKERS_MAX && !heard.contains_key(&view.id) {
            heard.retain(|_, heard| as_seen(heard.clone(), view.last_seen).is_some());
            if heard.len() >= WORKERS_MAX {
                return Err(full());
            }
        }
        heard.insert(view.id, view);
        Ok(())
    }

    async fn leave(&self, worker: WorkerId) -> Result<(), Unavailable> {
        locked(&self.heard).remove(&worker);
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, Unavailable> {
        let now = self.clock.now();
        let mut heard = locked(&self.heard);
        heard.retain(|_, view| as_seen(view.clone(), now).is_some());
        Ok(heard.values().filter_map(|view| as_seen(view.clone(), now)).collect())
    }
}
