//! What the embedded store counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Handles are shared: a clone counts into the same series.
#[derive(Clone)]
pub struct Metrics {
    /// Changes and records in one commit.
    pub(super) batch: Histogram,
    pub(super) commit_seconds: Histogram,
    /// Records that wait to be written behind.
    pub(super) behind: IntGauge,
    /// Writes refused because too many waited.
    pub(super) refused: IntCounter,
    /// Records accepted for writing behind that could not be written.
    pub(super) lost: IntCounter,
    pub(super) used_bytes: IntGauge,
    pub(super) artifacts_collected: IntCounter,
}

impl Metrics {
    /// Makes the series and registers them.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            batch: Histogram::with_opts(
                HistogramOpts::new("faasd_store_commit_batch_size", "Changes and records that shared one commit")
                    .buckets(vec![1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]),
            )?,
            commit_seconds: Histogram::with_opts(
                HistogramOpts::new("faasd_store_commit_seconds", "Time to apply and commit one batch")
                    .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0]),
            )?,
            behind: IntGauge::new("faasd_store_records_behind", "Records that wait to be written behind")?,
            refused: IntCounter::new("faasd_store_writes_refused_total", "Writes refused because too many waited")?,
            lost: IntCounter::new("faasd_store_records_lost_total", "Records that could not be written behind")?,
            used_bytes: IntGauge::new("faasd_store_used_bytes", "Bytes of the database in use, at the last sweep")?,
            artifacts_collected: IntCounter::new("faasd_store_artifacts_collected_total", "Artifacts collected")?,
        };
        registry.register(Box::new(metrics.batch.clone()))?;
        registry.register(Box::new(metrics.commit_seconds.clone()))?;
        registry.register(Box::new(metrics.behind.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        registry.register(Box::new(metrics.used_bytes.clone()))?;
        registry.register(Box::new(metrics.artifacts_collected.clone()))?;
        Ok(metrics)
    }
}
