//! What the store on DynamoDB counts.

use aws_sdk_dynamodb::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Handles are shared: a clone counts into the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// By operation and outcome, each try by itself.
    pub(super) requests: IntCounterVec,
    /// Records that wait to be written behind.
    pub(super) behind: IntGauge,
    /// Writes refused because too many waited.
    pub(super) refused: IntCounter,
    /// Records accepted for writing behind that could not be written.
    pub(super) lost: IntCounter,
}

impl Metrics {
    /// Makes the series and registers them. The names without `dynamodb` are those of the embedded store: a node has one of them.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("faasd_dynamodb_requests_total", "Requests to DynamoDB, each try by itself"),
                &["operation", "outcome"],
            )?,
            behind: IntGauge::new("faasd_store_records_behind", "Records that wait to be written behind")?,
            refused: IntCounter::new("faasd_store_writes_refused_total", "Writes refused because too many waited")?,
            lost: IntCounter::new("faasd_store_records_lost_total", "Records that could not be written behind")?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.behind.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        Ok(metrics)
    }
}

/// Counts every request that a client sends.
#[derive(Debug)]
pub(super) struct Count(pub IntCounterVec);

impl Intercept for Count {
    fn name(&self) -> &'static str {
        "Count"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().map_or("unknown", |metadata| metadata.name());
        // A condition that refused is an answer, but to know it from a failure here one would have to read every type of error.
        let outcome = match context.output_or_error() {
            Some(Ok(_)) => "ok",
            Some(Err(_)) if context.response().is_some_and(|response| response.status().as_u16() < 500) => "refused",
            _ => "failed",
        };
        self.0.with_label_values(&[operation, outcome]).inc();
        Ok(())
    }
}
