//! What becomes of the fleet's address at this controller, for `docs/metrics.md`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::domain::tenure::Tenure;
use crate::ports::clock::Clock;

use super::metrics::registered;

pub(super) struct Metrics {
    changes: IntCounterVec,
    pub failures: IntCounter,
}

/// Whether the lease is held at the moment of the question: one that ran out is over, whatever this process was doing meanwhile.
struct Holds {
    tenure: Arc<Mutex<Tenure>>,
    clock: Arc<dyn Clock>,
    gauge: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry, tenure: Arc<Mutex<Tenure>>, clock: Arc<dyn Clock>) -> Self {
        let gauge =
            IntGauge::new("faasd_fleet_address_lease", "1 where this controller has the lease of the fleet's address.");
        let gauge = gauge.expect("the name is valid");
        if let Err(error) = registry.register(Box::new(Holds { tenure, clock, gauge })) {
            tracing::warn!(%error, "metric not registered");
        }
        let changes = Opts::new("faasd_fleet_address_changes_total", "What became of the fleet's address here.");
        let failures =
            IntCounter::new("faasd_fleet_address_failures_total", "Questions about the address without an answer.");
        Self {
            changes: registered(registry, IntCounterVec::new(changes, &["change"])),
            failures: registered(registry, failures),
        }
    }

    pub fn changed(&self, change: &str) {
        self.changes.with_label_values(&[change]).inc();
    }
}

impl Collector for Holds {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let tenure = *self.tenure.lock().unwrap_or_else(PoisonError::into_inner);
        self.gauge.set(tenure.holds(self.clock.monotonic()).is_some().into());
        self.gauge.collect()
    }
}
