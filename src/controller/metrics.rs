//! What the controller counts. Handles are resolved once; labels come from fixed sets (route templates, methods, statuses).

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::domain::outcome::Status;

/// From 100 µs to 60 s, about a factor of two apart where calls are fast.
const LATENCY_BUCKETS: [f64; 20] = [
    0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    20.0, 60.0,
];

#[derive(Clone)]
pub struct Metrics {
    pub requests: IntCounterVec,
    pub latency: HistogramVec,
    pub rejected: IntCounterVec,
    pub invocations: IntCounterVec,
    pub auth_failures: IntCounter,
    pub auth_throttled: IntCounter,
    pub audit_entries: IntCounterVec,
    pub audit_failures: IntCounter,
    pub rate_limited: IntCounter,
    pub async_accepted: IntCounter,
    pub sync_inflight: IntGauge,
    pub connections: IntGauge,
    pub streams: IntGauge,
    /// `POST /run` answered 200, looked up ahead for the hot path.
    pub run_ok: IntCounter,
    pub run_latency: Histogram,
    finished: [IntCounter; Status::ALL.len()],
}

impl Metrics {
    /// Registers everything at `registry`.
    ///
    /// # Panics
    /// If the registry already holds a metric of one of these names: two controllers need two registries.
    pub fn new(registry: &Registry) -> Self {
        let requests =
            counters(registry, "http_requests_total", "HTTP requests answered.", &["route", "method", "status"]);
        let latency = histograms(registry, "http_request_duration_seconds", "From a request's head to its answer.");
        let invocations =
            counters(registry, "invocations_total", "Synchronous invocations ended, by final status.", &["status"]);
        Self {
            run_ok: requests.with_label_values(&["/run", "POST", "200"]),
            run_latency: latency.with_label_values(&["/run", "POST"]),
            finished: Status::ALL.map(|status| invocations.with_label_values(&[status.as_str()])),
            requests,
            latency,
            invocations,
            rejected: counters(
                registry,
                "rejected_total",
                "Calls refused before they ran, by error code.",
                &["reason"],
            ),
            auth_failures: counter(registry, "auth_failures_total", "Requests with no key or an unknown one."),
            auth_throttled: counter(
                registry,
                "auth_throttled_total",
                "Unknown credentials refused because their address had too many.",
            ),
            audit_entries: counters(registry, "audit_entries_total", "Lines for the audit log.", &["outcome"]),
            audit_failures: counter(registry, "audit_failures_total", "Times that the audit log could not be written."),
            rate_limited: counter(registry, "rate_limited_total", "Requests refused by the rate limit."),
            async_accepted: counter(registry, "async_accepted_total", "Asynchronous invocations accepted."),
            sync_inflight: gauge(registry, "sync_inflight", "Synchronous invocations in flight."),
            connections: gauge(registry, "connections", "Open HTTP connections."),
            streams: gauge(registry, "event_streams", "Open event streams."),
        }
    }

    pub fn count_finished(&self, status: Status) {
        if let Some(at) = Status::ALL.iter().position(|other| *other == status) {
            self.finished[at].inc();
        }
    }

    /// How many ended with `status` since the start.
    pub fn finished(&self, status: Status) -> u64 {
        Status::ALL.iter().position(|other| *other == status).map_or(0, |at| self.finished[at].get())
    }
}

fn name(of: &str) -> String {
    format!("faasd_controller_{of}")
}

fn register<M: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels are constants of this file and well formed");
    registry.register(Box::new(metric.clone())).expect("one controller a registry, as documented");
    metric
}

fn counter(registry: &Registry, of: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name(of), help))
}

fn gauge(registry: &Registry, of: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name(of), help))
}

fn counters(registry: &Registry, of: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name(of), help), labels))
}

fn histograms(registry: &Registry, of: &str, help: &str) -> HistogramVec {
    let opts = HistogramOpts::new(name(of), help).buckets(LATENCY_BUCKETS.to_vec());
    register(registry, HistogramVec::new(opts, &["route", "method"]))
}
