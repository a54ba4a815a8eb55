//! What the queue on SQS counts: requests, which are what it costs.

use prometheus::{IntCounterVec, Opts, Registry};

/// Handles are shared: a clone counts into the same series.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    failures: IntCounterVec,
    messages: IntCounterVec,
    returned: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let metrics = Self {
            requests: counter("faasd_queue_requests_total", "Requests made to SQS, by action", "action")?,
            failures: counter("faasd_queue_request_failures_total", "Requests that failed, by action", "action")?,
            messages: counter("faasd_queue_messages_total", "Messages that requests carried, by action", "action")?,
            returned: counter("faasd_queue_returned_total", "Messages given back unread, by reason", "reason")?,
        };
        for counter in [&metrics.requests, &metrics.failures, &metrics.messages, &metrics.returned] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(metrics)
    }

    pub(super) fn request(&self, action: &str, messages: usize) {
        self.requests.with_label_values(&[action]).inc();
        self.messages.with_label_values(&[action]).inc_by(messages as u64);
    }

    pub(super) fn received(&self, messages: usize) {
        self.messages.with_label_values(&["receive"]).inc_by(messages as u64);
    }

    pub(super) fn failed(&self, action: &str) {
        self.failures.with_label_values(&[action]).inc();
    }

    pub(super) fn returned(&self, reason: &str) {
        self.returned.with_label_values(&[reason]).inc();
    }
}
