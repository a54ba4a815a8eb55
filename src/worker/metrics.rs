//! What the worker counts. Names and labels are the contract of `docs/metrics.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use crate::domain::function::Runtime;
use crate::domain::outcome::{Outcome, StartType, Status};
use crate::domain::pool::{EndReason, Pool};

/// Distinct functions shown by name; all others together are `other`.
const FUNCTIONS_MAX: usize = 1000;
const OTHER: &str = "other";

const FINAL: [Status; 4] = [Status::Success, Status::Failed, Status::Timeout, Status::Cancelled];
const STARTS: [StartType; 4] = [StartType::Warm, StartType::Prewarmed, StartType::Cold, StartType::Stolen];

/// From 100 µs to 15 min.
const DURATION_BUCKETS_S: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
    900.0,
];

pub struct Metrics {
    invocations: IntCounterVec,
    cpu: CounterVec,
    disk_read: IntCounterVec,
    disk_write: IntCounterVec,
    peak_memory: IntGaugeVec,
    duration: Histogram,
    starts: [IntCounter; STARTS.len()],
    sandboxes: IntGaugeVec,
    ends: IntCounterVec,
    start_failures: IntCounterVec,
    refusals: IntCounterVec,
    /// Calls that went to another sandbox, because theirs was spoiled before they began.
    pub(super) moved: IntCounter,
    active: IntGauge,
    waiting: IntGauge,
    memory: IntGauge,
    pub(super) jobs: IntCounterVec,
    functions: Mutex<HashMap<Arc<str>, Arc<FunctionMetrics>>>,
}

/// One function's counters, looked up once per sandbox.
pub struct FunctionMetrics {
    by_status: [IntCounter; FINAL.len()],
    cpu: Counter,
    disk_read: IntCounter,
    disk_write: IntCounter,
    peak_memory: IntGauge,
}

/// Registers, and goes on uncounted where the name is taken: a second worker in one registry is a test's affair.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the names and labels in this file are valid");
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "metric not registered");
    }
    metric
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help));
        let starts = counters("faasd_worker_starts_total", "Calls by how their sandbox was come by.", &["type"]);
        let duration = HistogramOpts::new("faasd_worker_invocation_seconds", "Calls, from checkout to outcome.")
            .buckets(DURATION_BUCKETS_S.to_vec());
        let cpu = Opts::new("faasd_worker_cpu_seconds_total", "Processor time of calls.");
        Self {
            invocations: counters("faasd_worker_invocations_total", "Calls that ended.", &["function", "status"]),
            cpu: registered(registry, CounterVec::new(cpu, &["function"])),
            disk_read: counters("faasd_worker_disk_read_bytes_total", "Read by calls.", &["function"]),
            disk_write: counters("faasd_worker_disk_written_bytes_total", "Written by calls.", &["function"]),
            peak_memory: gauges("faasd_worker_peak_memory_bytes", "Peak of the last call.", &["function"]),
            duration: registered(registry, Histogram::with_opts(duration)),
            starts: STARTS.map(|start_type| starts.with_label_values(&[start_type.as_str()])),
            sandboxes: gauges("faasd_worker_sandboxes", "Sandboxes alive.", &["runtime", "state"]),
            ends: counters("faasd_worker_sandbox_ends_total", "Sandboxes ended, by reason.", &["reason"]),
            start_failures: counters("faasd_worker_start_failures_total", "Starts that failed.", &["step"]),
            refusals: counters("faasd_worker_refusals_total", "Calls that got no sandbox.", &["reason"]),
            moved: registered(
                registry,
                IntCounter::new("faasd_worker_moved_calls_total", "Calls whose sandbox was spoiled before they began."),
            ),
            active: gauge("faasd_worker_active_calls", "Calls running."),
            waiting: gauge("faasd_worker_waiting_calls", "Calls waiting for a sandbox."),
            memory: gauge("faasd_worker_promised_memory_bytes", "Memory promised to sandboxes."),
            jobs: counters("faasd_worker_jobs_total", "Jobs of the queue, by what became of them.", &["end"]),
            functions: Mutex::default(),
        }
    }

    /// The counters of a function, or of all `other`.
    pub fn function(&self, name: &Arc<str>) -> Arc<FunctionMetrics> {
        // Every change is one step, so a panic leaves nothing half done.
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = functions.get(name) {
            return found.clone();
        }
        if functions.len() >= FUNCTIONS_MAX {
            return functions.entry(OTHER.into()).or_insert_with(|| self.resolve(OTHER)).clone();
        }
        functions.entry(name.clone()).or_insert_with(|| self.resolve(name)).clone()
    }

    fn resolve(&self, name: &str) -> Arc<FunctionMetrics> {
        Arc::new(FunctionMetrics {
            by_status: FINAL.map(|status| self.invocations.with_label_values(&[name, status.as_str()])),
            cpu: self.cpu.with_label_values(&[name]),
            disk_read: self.disk_read.with_label_values(&[name]),
            disk_write: self.disk_write.with_label_values(&[name]),
            peak_memory: self.peak_memory.with_label_values(&[name]),
        })
    }

    pub(super) fn ended(&self, function: &FunctionMetrics, outcome: &Outcome, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        if let Some(at) = outcome.start_type.and_then(|of| STARTS.iter().position(|start| *start == of)) {
            self.starts[at].inc();
        }
        if let Some(at) = FINAL.iter().position(|status| *status == outcome.status) {
            function.by_status[at].inc();
        }
        if outcome.start_type.is_some() {
            function.cpu.inc_by(outcome.usage.cpu_us as f64 / 1e6);
            function.disk_read.inc_by(outcome.usage.disk_read_bytes);
            function.disk_write.inc_by(outcome.usage.disk_write_bytes);
            function.peak_memory.set(outcome.usage.peak_memory_bytes as i64);
        }
    }

    pub(super) fn sandbox_ended(&self, reason: EndReason) {
        self.ends.with_label_values(&[reason.as_str()]).inc();
    }

    /// `step` is one of the driver's fixed words.
    pub(super) fn start_failed(&self, step: &'static str) {
        self.start_failures.with_label_values(&[step]).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// Gauges follow the pool by being set from it now and then.
    pub(super) fn observe(&self, pool: &Pool) {
        self.active.set(pool.active() as i64);
        self.waiting.set(pool.waiting() as i64);
        self.memory.set((pool.memory_mb() * 1024 * 1024) as i64);
        let counts = pool.counts();
        for runtime in Runtime::ALL {
            let of = counts[runtime as usize];
            for (state, count) in [
                ("warm", of.warm),
                ("prewarmed", of.prewarmed),
                ("busy", of.busy),
                ("starting", of.starting),
                ("ending", of.ending),
                ("frozen", of.frozen),
            ] {
                self.sandboxes.with_label_values(&[runtime.as_str(), state]).set(i64::from(count));
            }
        }
    }
}
