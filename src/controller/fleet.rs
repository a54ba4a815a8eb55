//! The workers heard of: by their heartbeats, or because they are in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::ids::WorkerId;
use crate::ports::executor::{WorkerState, WorkerView};

/// A worker unheard for so long is dead …
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// … and after this forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Workers known at once; the longest unheard makes room.
const WORKERS_MAX: usize = 1024;

#[derive(Default)]
pub struct Fleet {
    heard: Mutex<BTreeMap<WorkerId, (WorkerView, Duration)>>,
}

impl Fleet {
    pub fn hear(&self, view: WorkerView, now: Duration) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (_, at)| now.saturating_sub(*at) < FORGOTTEN_AFTER);
        if heard.len() >= WORKERS_MAX
            && !heard.contains_key(&view.id)
            && let Some(oldest) = heard.iter().min_by_key(|(_, (_, at))| *at).map(|(id, _)| *id)
        {
            heard.remove(&oldest);
        }
        heard.insert(view.id, (view, now));
    }

    /// `known` first, then those heard beside them, by id.
    pub fn workers(&self, mut known: Vec<WorkerView>, now: Duration) -> Vec<WorkerView> {
        let ids: BTreeSet<WorkerId> = known.iter().map(|view| view.id).collect();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let others =
            heard.values().filter(|(view, at)| !ids.contains(&view.id) && now.saturating_sub(*at) < FORGOTTEN_AFTER);
        known.extend(others.map(|(view, at)| {
            let dead = now.saturating_sub(*at) >= DEAD_AFTER;
            WorkerView { state: if dead { WorkerState::Dead } else { view.state }, ..view.clone() }
        }));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn view(id: u128) -> WorkerView {
        WorkerView {
            id: WorkerId(uuid::Uuid::from_u128(id)),
            address: String::new(),
            state: WorkerState::Active,
            pools: BTreeMap::new(),
            active: 0,
            waiting: 0,
            capacity: 1,
            load: 0.0,
            mean_ms: 0.0,
            last_seen: Timestamp(0),
        }
    }

    #[test]
    fn a_worker_unheard_for_half_a_minute_is_dead() {
        let fleet = Fleet::default();
        fleet.hear(view(2), Duration::ZERO);
        let state = |at| fleet.workers(vec![view(1)], Duration::from_secs(at)).get(1).map(|view| view.state);
        assert_eq!(state(29), Some(WorkerState::Active));
        assert_eq!(state(30), Some(WorkerState::Dead));
        assert_eq!(state(600), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let fleet = Fleet::default();
        for id in 0..2000 {
            fleet.hear(view(id), Duration::from_millis(id as u64));
        }
        assert_eq!(fleet.workers(vec![view(0)], Duration::from_secs(3)).len(), WORKERS_MAX + 1);
    }
}
