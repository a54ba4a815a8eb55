//! Watches the disk that the data directory is on: has what can be had again given back when room runs out, and says so.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::adapters::disk_space::DiskSpace;
use crate::domain::disk::{Room, wanted};
use crate::ports::disk::Spare;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While room is low, the first to be asked has had so long to give back what it can.
const COLLECT_EVERY: Duration = Duration::from_secs(30);

struct Metrics {
    available: IntGauge,
    room: IntGauge,
    given_back: IntCounterVec,
}

impl Metrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let given_back = Opts::new("faasd_disk_given_back_bytes_total", "Bytes given back because the disk filled.");
        let metrics = Self {
            available: IntGauge::new("faasd_disk_available_bytes", "Bytes available where the data directory is.")?,
            room: IntGauge::new("faasd_disk_room", "0 ample, 1 low, 2 full.")?,
            given_back: IntCounterVec::new(given_back, &["of"])?,
        };
        registry.register(Box::new(metrics.available.clone()))?;
        registry.register(Box::new(metrics.room.clone()))?;
        registry.register(Box::new(metrics.given_back.clone()))?;
        Ok(metrics)
    }
}

pub(super) struct Watch {
    disk: Arc<DiskSpace>,
    /// In the order in which they are asked.
    spares: Vec<Arc<dyn Spare>>,
    metrics: Metrics,
}

impl Watch {
    pub fn new(disk: Arc<DiskSpace>, spares: Vec<Arc<dyn Spare>>, registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self { disk, spares, metrics: Metrics::new(registry)? })
    }

    /// For ever.
    pub async fn run(self) {
        let (mut before, mut since_collection) = (Room::Ample, COLLECT_EVERY);
        loop {
            let room = self.look().await;
            if room != before {
                self.tell(room);
                // Worse, or just so: either way what there is to give back is asked for at once.
                since_collection = COLLECT_EVERY;
            }
            before = room;
            if room != Room::Ample && since_collection >= COLLECT_EVERY {
                since_collection = Duration::ZERO;
                self.collect().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            since_collection += LOOK_EVERY;
        }
    }

    /// What can't be looked at is taken for what it was.
    async fn look(&self) -> Room {
        let disk = self.disk.clone();
        match tokio::task::spawn_blocking(move || disk.look()).await {
            Ok(Ok((available, room))) => {
                self.metrics.available.set(available.min(i64::MAX as u64) as i64);
                self.metrics.room.set(room as i64);
                room
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the disk does not say what room it has");
                crate::ports::disk::Disk::room(self.disk.as_ref())
            }
            Err(_) => Room::Ample,
        }
    }

    fn tell(&self, room: Room) {
        let available_bytes = self.metrics.available.get();
        match room {
            Room::Ample => tracing::info!(available_bytes, "the disk has room again"),
            Room::Low => tracing::warn!(available_bytes, "the disk fills: what can be had again is given back"),
            Room::Full => tracing::error!(
                available_bytes,
                "the disk of the data directory is full: deployments are refused, and asynchronous calls where the queue is on it; \
                 make room, or set disk.free_bytes_min lower"
            ),
        }
    }

    async fn collect(&self) {
        for spare in &self.spares {
            let wanted = wanted(self.metrics.available.get().max(0) as u64, self.disk.floor());
            if wanted == 0 {
                return;
            }
            let bytes = spare.give_back(wanted).await;
            self.metrics.given_back.with_label_values(&[spare.name()]).inc_by(bytes);
            tracing::info!(of = spare.name(), bytes, wanted, "given back to the disk");
            self.look().await;
        }
    }
}
