//! What is counted of Redis.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Handles are shared: a clone counts into the same series.
#[derive(Clone)]
pub struct Metrics {
    pub(super) up: IntGauge,
    pub(super) commands_failed: IntCounterVec,
    pub(super) command_seconds: Histogram,
    pub(super) reconnects: IntCounter,
    pub(super) news_sent: IntCounter,
    pub(super) news_received: IntCounter,
    /// News of ours that nobody else was told.
    pub(super) news_lost: IntCounter,
    /// Times that listeners here were told to read again.
    pub(super) news_missed: IntCounter,
}

impl Metrics {
    /// Makes the series and registers them.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            up: IntGauge::new("faasd_redis_up", "1 while Redis answers and news arrive, else 0")?,
            commands_failed: IntCounterVec::new(
                Opts::new("faasd_redis_commands_failed_total", "Commands that failed or were given up"),
                &["command", "reason"],
            )?,
            command_seconds: Histogram::with_opts(
                HistogramOpts::new("faasd_redis_command_seconds", "Time of a command, failed ones too")
                    .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0]),
            )?,
            reconnects: IntCounter::new("faasd_redis_reconnects_total", "Connections after the first of each client")?,
            news_sent: IntCounter::new("faasd_redis_news_sent_total", "News that other nodes were told")?,
            news_received: IntCounter::new("faasd_redis_news_received_total", "News from other nodes")?,
            news_lost: IntCounter::new("faasd_redis_news_lost_total", "News that could not be sent to other nodes")?,
            news_missed: IntCounter::new(
                "faasd_redis_news_missed_total",
                "Times that news may have been missed, and everybody here read again",
            )?,
        };
        registry.register(Box::new(metrics.up.clone()))?;
        registry.register(Box::new(metrics.commands_failed.clone()))?;
        registry.register(Box::new(metrics.command_seconds.clone()))?;
        registry.register(Box::new(metrics.reconnects.clone()))?;
        registry.register(Box::new(metrics.news_sent.clone()))?;
        registry.register(Box::new(metrics.news_received.clone()))?;
        registry.register(Box::new(metrics.news_lost.clone()))?;
        registry.register(Box::new(metrics.news_missed.clone()))?;
        Ok(metrics)
    }
}
