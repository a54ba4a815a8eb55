//! What the fleet's calls are counted by. Names and labels are the contract of `docs/metrics.md`.

use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::ports::executor::{WorkerState, WorkerView};

pub struct Metrics {
    /// By how the worker was found.
    pub(super) sent: IntCounterVec,
    pub(super) stale: IntCounter,
    pub(super) stolen: IntCounter,
    /// By why the try before was none.
    pub(super) retries: IntCounterVec,
    /// Asked of this worker.
    pub(super) served: IntCounterVec,
    pub(super) unauthorised: IntCounter,
    pub(super) lines_dropped: IntCounter,
    workers: IntGaugeVec,
    work: Gauge,
}

/// Registers, and goes on uncounted where the name is taken: a second fleet in one registry is a test's affair.
pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the names and labels in this file are valid");
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "metric not registered");
    }
    metric
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help));
        Self {
            sent: counters("faasd_fleet_sent_total", "Calls sent to workers, by how these were found.", "by"),
            stale: counter("faasd_fleet_stale_claims_total", "Claims whose sandbox was gone."),
            stolen: counter("faasd_fleet_stolen_total", "Calls that waited at one worker and ran at another."),
            retries: counters("faasd_fleet_retries_total", "Calls sent once more, by why.", "reason"),
            served: counters("faasd_fleet_served_total", "Calls of other nodes, by what became of them.", "end"),
            unauthorised: counter("faasd_fleet_unauthorised_total", "Requests without proof of the fleet's secret."),
            lines_dropped: counter(
                "faasd_fleet_lines_dropped_total",
                "Printed lines that a following controller was too slow for.",
            ),
            workers: registered(
                registry,
                IntGaugeVec::new(Opts::new("faasd_fleet_workers", "Workers known, by state."), &["state"]),
            ),
            work: registered(
                registry,
                Gauge::new("faasd_fleet_work_per_worker", "Seconds of work for each place of the live workers."),
            ),
        }
    }

    pub(super) fn observe(&self, workers: &[WorkerView], work: f64) {
        for (state, name) in [
            (WorkerState::Active, "active"),
            (WorkerState::Cordoned, "cordoned"),
            (WorkerState::Draining, "draining"),
            (WorkerState::Dead, "dead"),
        ] {
            let of = workers.iter().filter(|worker| worker.state == state).count();
            self.workers.with_label_values(&[name]).set(of as i64);
        }
        self.work.set(work);
    }
}
