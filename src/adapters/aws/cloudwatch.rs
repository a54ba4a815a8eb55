//! The scaling figure in CloudWatch, where a group's scaling policy finds it: one metric, `WorkPerWorker`.

use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;

use crate::ports::Unavailable;
use crate::ports::clock::Clock;
use crate::ports::signal::Signal;

use super::query::Query;

const METRIC: &str = "WorkPerWorker";
const VERSION: &str = "2010-08-01";

pub struct CloudWatch {
    metrics: Query,
    namespace: String,
}

impl CloudWatch {
    pub fn new(sdk: &SdkConfig, namespace: &str, clock: Arc<dyn Clock>) -> Result<Self, Unavailable> {
        let metrics = Query::new(sdk, "monitoring", None, clock).map_err(Unavailable)?;
        Ok(Self { metrics, namespace: namespace.to_owned() })
    }
}

#[async_trait]
impl Signal for CloudWatch {
    async fn publish(&self, work_per_worker: f64) -> Result<(), Unavailable> {
        let value = work_per_worker.to_string();
        let parameters = [
            ("Namespace", self.namespace.as_str()),
            ("MetricData.member.1.MetricName", METRIC),
            ("MetricData.member.1.Unit", "None"),
            ("MetricData.member.1.Value", &value),
        ];
        self.metrics.ask("PutMetricData", VERSION, &parameters).await.map(drop).map_err(Unavailable)
    }
}
