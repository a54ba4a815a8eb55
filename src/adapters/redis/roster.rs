//! The roster: one hash, a field for each worker with when it was last heard, by Redis's clock, and its view as JSON.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::scripts::Script;
use fred::types::{Key, Value};

use crate::domain::ids::WorkerId;
use crate::domain::time::Timestamp;
use crate::ports::Unavailable;
use crate::ports::executor::WorkerView;
use crate::ports::roster::{FORGOTTEN_AFTER, Roster, WORKERS_MAX, as_seen, full};

use super::commands::Commands;

static BEAT: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/beat.lua")));
static WORKERS: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/workers.lua")));

pub(super) struct RedisRoster {
    key: Key,
    commands: Commands,
}

impl RedisRoster {
    pub fn new(prefix: Arc<str>, commands: Commands) -> Self {
        Self { key: format!("{{{prefix}:workers}}").into(), commands }
    }
}

fn field(worker: WorkerId) -> Bytes {
    Bytes::copy_from_slice(worker.0.as_bytes())
}

/// When the worker was heard, and its view; `None`: from a faasd that writes it otherwise.
fn read(entry: &[u8]) -> Option<WorkerView> {
    let space = entry.iter().position(|byte| *byte == b' ')?;
    let (heard, view) = entry.split_at(space);
    let last_seen = std::str::from_utf8(heard).ok()?.parse().map(Timestamp).ok()?;
    let view: WorkerView = serde_json::from_slice(view).ok()?;
    Some(WorkerView { last_seen, ..view })
}

#[async_trait]
impl Roster for RedisRoster {
    async fn beat(&self, view: &WorkerView) -> Result<(), Unavailable> {
        let json = serde_json::to_vec(view).map_err(|error| Unavailable(format!("write a heartbeat: {error}")))?;
        let arguments: Vec<Value> = vec![
            field(view.id).into(),
            Bytes::from(json).into(),
            (WORKERS_MAX as i64).into(),
            (FORGOTTEN_AFTER.as_millis() as i64).into(),
        ];
        let heard: i64 = self.commands.script("beat", &BEAT, vec![self.key.clone()], arguments).await?;
        if heard == 1 { Ok(()) } else { Err(full()) }
    }

    async fn leave(&self, worker: WorkerId) -> Result<(), Unavailable> {
        self.commands.forget(self.key.clone(), vec![field(worker).into()]).await
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, Unavailable> {
        let (now, entries): (u64, Vec<Bytes>) =
            self.commands.script("workers", &WORKERS, vec![self.key.clone()], Vec::new()).await?;
        let now = Timestamp(now);
        let (mut workers, mut over) = (Vec::with_capacity(entries.len() / 2), Vec::new());
        for entry in entries.chunks_exact(2) {
            match read(&entry[1]).map(|view| as_seen(view, now)) {
                Some(Some(view)) => workers.push(view),
                Some(None) => over.push(Key::from(entry[0].clone())),
                None => tracing::debug!("a heartbeat can't be read"),
            }
        }
        if !over.is_empty() {
            // Whoever reads next does it otherwise.
            let _ = self.commands.forget(self.key.clone(), over).await;
        }
        workers.sort_unstable_by_key(|view| view.id);
        Ok(workers)
    }
}
