//! What the worker counts. Names and labels are the contract of `docs/metrics.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};

use crate::domain::function::Runtime;
use crate::domain::outcome::{Outcome, StartType, Status};
use crate::domain::pool::{EndReason, MadeAhead, Pool};
use crate::ports::usage::Sample;

/// Distinct functions shown by name; all others together are `other`.
const FUNCTIONS_MAX: usize = 1000;
const OTHER: &str = "other";

const FINAL: [Status; 4] = [Status::Success, Status::Failed, Status::Timeout, Status::Cancelled];
const STARTS: [StartType; 4] = [StartType::Warm, StartType::Prewarmed, StartType::Cold, StartType::Stolen];

/// From 50 µs to 15 min, the longest timeout: close together where a warm call is, wide where only a timeout is told from none.
const DURATION_BUCKETS_S: [f64; 21] = [
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0, 900.0,
];

const MIB: u64 = 1 << 20;

/// A histogram for each start type of each runtime; made when first used, so that what never happens takes no series.
type ByStart = [[OnceLock<Histogram>; STARTS.len()]; Runtime::ALL.len()];

pub struct Metrics {
    invocations: IntCounterVec,
    cpu: CounterVec,
    disk_read: IntCounterVec,
    disk_write: IntCounterVec,
    peak_memory: IntGaugeVec,
    throttled: CounterVec,
    pressure: [Counter; 3],
    function_memory: IntGaugeVec,
    function_sandboxes: IntGaugeVec,
    duration: Histogram,
    start_seconds: HistogramVec,
    start_seconds_of: ByStart,
    handler_seconds: HistogramVec,
    handler_seconds_of: [OnceLock<Histogram>; Runtime::ALL.len()],
    init_seconds: HistogramVec,
    sandbox_start_seconds: HistogramVec,
    starts: [IntCounter; STARTS.len()],
    sandboxes: IntGaugeVec,
    ends: IntCounterVec,
    start_failures: IntCounterVec,
    refusals: IntCounterVec,
    /// Calls that went to another sandbox, because theirs was spoiled before they began.
    pub(super) moved: IntCounter,
    /// Made, used, wasted.
    made_ahead: [IntCounter; 3],
    active: IntGauge,
    waiting: IntGauge,
    memory: IntGauge,
    memory_budget: IntGauge,
    capacity: IntGauge,
    sandbox_memory: IntGauge,
    sandbox_tasks: IntGauge,
    sandbox_cpu: Counter,
    kills: IntCounterVec,
    pub(super) jobs: IntCounterVec,
    /// Leases that this worker holds.
    pub(super) leases: IntGauge,
    pub(super) lease_extensions: IntCounterVec,
    pub(super) uploads: IntCounterVec,
    /// Calls of which something is on its way to the artifact store behind the answer.
    pub(super) uploads_under_way: IntGauge,
    functions: Mutex<HashMap<Arc<str>, Arc<FunctionMetrics>>>,
}

/// What was known at the last look of how long handlers run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    calls: u64,
    seconds: f64,
    mean: Duration,
}

/// One function's counters, looked up once per sandbox.
pub struct FunctionMetrics {
    by_status: [IntCounter; FINAL.len()],
    cpu: Counter,
    disk_read: IntCounter,
    disk_write: IntCounter,
    peak_memory: IntGauge,
    throttled: Counter,
    /// Of all its sandboxes, at the last look.
    memory: IntGauge,
    sandboxes: IntGauge,
}

impl FunctionMetrics {
    pub(super) fn sampled(&self, memory_bytes: u64, sandboxes: u64) {
        self.memory.set(memory_bytes as i64);
        self.sandboxes.set(sandboxes as i64);
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
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
        let histograms = |name: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS_S.to_vec());
            registered(registry, HistogramVec::new(opts, labels))
        };
        let ahead =
            counters("faasd_worker_made_ahead_total", "Sandboxes made ahead of a predicted call, by what.", &["what"]);
        let pressure = registered(
            registry,
            CounterVec::new(
                Opts::new("faasd_worker_pressure_seconds_total", "Time that calls waited for what others used."),
                &["resource"],
            ),
        );
        let throttled =
            Opts::new("faasd_worker_throttled_seconds_total", "Time that calls were held back by their limit.");
        let duration = HistogramOpts::new("faasd_worker_invocation_seconds", "Calls, from checkout to outcome.")
            .buckets(DURATION_BUCKETS_S.to_vec());
        let cpu = Opts::new("faasd_worker_cpu_seconds_total", "Processor time of calls.");
        Self {
            invocations: counters("faasd_worker_invocations_total", "Calls that ended.", &["function", "status"]),
            cpu: registered(registry, CounterVec::new(cpu, &["function"])),
            disk_read: counters("faasd_worker_disk_read_bytes_total", "Read by calls.", &["function"]),
            disk_write: counters("faasd_worker_disk_written_bytes_total", "Written by calls.", &["function"]),
            peak_memory: gauges("faasd_worker_peak_memory_bytes", "Peak of the last call.", &["function"]),
            throttled: registered(registry, CounterVec::new(throttled, &["function"])),
            pressure: ["cpu", "memory", "io"].map(|resource| pressure.with_label_values(&[resource])),
            function_memory: gauges(
                "faasd_worker_function_memory_bytes",
                "Memory used by the sandboxes of a function.",
                &["function"],
            ),
            function_sandboxes: gauges("faasd_worker_function_sandboxes", "Sandboxes of a function.", &["function"]),
            duration: registered(registry, Histogram::with_opts(duration)),
            start_seconds: histograms(
                "faasd_worker_start_seconds",
                "From the wish for a sandbox to one that has loaded the code.",
                &["runtime", "type"],
            ),
            start_seconds_of: Default::default(),
            handler_seconds: histograms(
                "faasd_worker_handler_seconds",
                "Time in the handler, by the runtime's own clock.",
                &["runtime"],
            ),
            handler_seconds_of: Default::default(),
            init_seconds: histograms("faasd_worker_init_seconds", "Loading of a function's code.", &["runtime"]),
            sandbox_start_seconds: histograms(
                "faasd_worker_sandbox_start_seconds",
                "Making of a generic sandbox, until its runtime is ready.",
                &["runtime"],
            ),
            starts: STARTS.map(|start_type| starts.with_label_values(&[start_type.as_str()])),
            sandboxes: gauges("faasd_worker_sandboxes", "Sandboxes alive.", &["runtime", "state"]),
            ends: counters("faasd_worker_sandbox_ends_total", "Sandboxes ended, by reason.", &["reason"]),
            start_failures: counters("faasd_worker_start_failures_total", "Starts that failed.", &["step"]),
            refusals: counters("faasd_worker_refusals_total", "Calls that got no sandbox.", &["reason"]),
            moved: registered(
                registry,
                IntCounter::new("faasd_worker_moved_calls_total", "Calls whose sandbox was spoiled before they began."),
            ),
            made_ahead: ["made", "used", "wasted"].map(|what| ahead.with_label_values(&[what])),
            active: gauge("faasd_worker_active_calls", "Calls running."),
            waiting: gauge("faasd_worker_waiting_calls", "Calls waiting for a sandbox."),
            memory: gauge("faasd_worker_promised_memory_bytes", "Memory promised to sandboxes."),
            memory_budget: gauge("faasd_worker_memory_budget_bytes", "Memory that may be promised to sandboxes."),
            capacity: gauge("faasd_worker_capacity_calls", "Calls that may run at once."),
            sandbox_memory: gauge("faasd_worker_sandbox_memory_bytes", "Memory used by all sandboxes."),
            sandbox_tasks: gauge("faasd_worker_sandbox_tasks", "Processes and threads in all sandboxes."),
            sandbox_cpu: registered(
                registry,
                Counter::new("faasd_worker_sandbox_cpu_seconds_total", "Processor time of sandboxes, in calls or not."),
            ),
            kills: counters("faasd_worker_sandbox_kills_total", "Sandboxes that a call was the end of.", &["cause"]),
            leases: gauge("faasd_worker_leases", "Jobs of the queue that this worker holds."),
            lease_extensions: counters("faasd_worker_lease_extensions_total", "Leases extended.", &["result"]),
            uploads: counters("faasd_worker_uploads_total", "Outputs and full logs of calls.", &["result"]),
            uploads_under_way: gauge(
                "faasd_worker_uploads_under_way",
                "Calls that are answered and whose outputs or logs are still being stored.",
            ),
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
            throttled: self.throttled.with_label_values(&[name]),
            memory: self.function_memory.with_label_values(&[name]),
            sandboxes: self.function_sandboxes.with_label_values(&[name]),
        })
    }

    /// How long handlers ran of late: between this look and those before it, each half as old as the next.
    pub(super) fn mean_handler(&self, pace: &mut Pace) -> Duration {
        let known = self.handler_seconds_of.iter().filter_map(OnceLock::get);
        let (calls, seconds) =
            known.fold((0, 0.0), |(n, s), one| (n + one.get_sample_count(), s + one.get_sample_sum()));
        if calls > pace.calls {
            let now = Duration::from_secs_f64(((seconds - pace.seconds) / (calls - pace.calls) as f64).max(0.0));
            pace.mean = if pace.calls == 0 { now } else { (pace.mean + now) / 2 };
            (pace.calls, pace.seconds) = (calls, seconds);
        }
        pace.mean
    }

    pub(super) fn ended(&self, function: &FunctionMetrics, runtime: Runtime, outcome: &Outcome, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let of = runtime as usize;
        if let Some(at) = outcome.start_type.and_then(|of| STARTS.iter().position(|start| *start == of)) {
            self.starts[at].inc();
            let labels = [runtime.as_str(), STARTS[at].as_str()];
            let start = self.start_seconds_of[of][at].get_or_init(|| self.start_seconds.with_label_values(&labels));
            start.observe(seconds(outcome.timings.acquire_us + outcome.timings.init_us));
            // Its own clock may say anything: not more than the call took.
            let handler = seconds(outcome.timings.handler_us).min(took.as_secs_f64());
            let labels = [runtime.as_str()];
            self.handler_seconds_of[of]
                .get_or_init(|| self.handler_seconds.with_label_values(&labels))
                .observe(handler);
        }
        if let Some(at) = FINAL.iter().position(|status| *status == outcome.status) {
            function.by_status[at].inc();
        }
        if outcome.start_type.is_some() {
            let usage = &outcome.usage;
            function.cpu.inc_by(seconds(usage.cpu_us));
            function.disk_read.inc_by(usage.disk_read_bytes);
            function.disk_write.inc_by(usage.disk_write_bytes);
            function.peak_memory.set(usage.peak_memory_bytes as i64);
            if usage.throttled_us > 0 {
                function.throttled.inc_by(seconds(usage.throttled_us));
            }
            // Short calls have none to tell.
            if let Some(pressure) = usage.pressure.filter(|pressure| *pressure != Default::default()) {
                for (counter, us) in self.pressure.iter().zip([pressure.cpu_us, pressure.memory_us, pressure.io_us]) {
                    counter.inc_by(seconds(us));
                }
            }
        }
    }

    /// A generic sandbox is ready.
    pub(super) fn started(&self, runtime: Runtime, took: Duration) {
        self.sandbox_start_seconds.with_label_values(&[runtime.as_str()]).observe(took.as_secs_f64());
    }

    /// A sandbox has loaded its function's code.
    pub(super) fn initialised(&self, runtime: Runtime, took: Duration) {
        self.init_seconds.with_label_values(&[runtime.as_str()]).observe(took.as_secs_f64());
    }

    /// A call was the end of its sandbox; `cause` is one of a fixed set of words.
    pub(super) fn killed(&self, cause: &'static str) {
        self.kills.with_label_values(&[cause]).inc();
    }

    /// All sandboxes together; the processor time is that since the last look.
    pub(super) fn sampled(&self, total: &Sample) {
        self.sandbox_memory.set(total.memory_bytes as i64);
        self.sandbox_tasks.set(total.tasks as i64);
        self.sandbox_cpu.inc_by(seconds(total.cpu_us));
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
        self.memory.set((pool.memory_mb() * MIB) as i64);
        self.memory_budget.set((pool.settings().memory_budget_mb * MIB) as i64);
        self.capacity.set(pool.settings().concurrency_max as i64);
        let MadeAhead { made, used, wasted } = pool.made_ahead();
        for (counter, count) in self.made_ahead.iter().zip([made, used, wasted]) {
            counter.inc_by(count - counter.get().min(count));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels of one metric, each series as `name="value",…`.
    fn series(registry: &Registry, name: &str) -> Vec<String> {
        let families = registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else { return Vec::new() };
        let labels = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().map(|label| format!("{}={:?}", label.name(), label.value())).collect::<Vec<_>>()
        };
        family.get_metric().iter().map(|metric| labels(metric).join(",")).collect()
    }

    #[test]
    fn two_thousand_functions_are_a_thousand_series_and_one_for_the_others() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        for number in 0..2000 {
            let function = metrics.function(&format!("function-{number}").into());
            let outcome = Outcome {
                start_type: Some(StartType::Warm),
                ..Outcome::without_execution(
                    Status::Success,
                    crate::domain::outcome::Failure::new(crate::domain::outcome::ErrorType::FunctionError, "none"),
                )
            };
            metrics.ended(&function, Runtime::Python, &outcome, Duration::from_micros(100));
            function.sampled(1, 1);
        }
        for name in ["faasd_worker_cpu_seconds_total", "faasd_worker_function_memory_bytes"] {
            let found = series(&registry, name);
            assert_eq!(found.len(), FUNCTIONS_MAX + 1, "{name}");
            assert!(found.contains(&"function=\"other\"".to_owned()), "{name}");
        }
        assert_eq!(series(&registry, "faasd_worker_invocations_total").len(), (FUNCTIONS_MAX + 1) * FINAL.len());
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "faasd_worker_invocations_total");
        let calls: f64 = family.map_or(0.0, |f| f.get_metric().iter().map(|m| m.get_counter().get_value()).sum());
        assert_eq!(calls, 2000.0, "those of the others are counted too");
        assert_eq!(series(&registry, "faasd_worker_start_seconds"), [r#"runtime="python",type="WARM""#]);
    }
}
