//! The scaling figure in CloudWatch, where a group's scaling policy finds it: one metric, `WorkPerWorker`.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::DisplayErrorContext;
use aws_sdk_cloudwatch::types::{MetricDatum, StandardUnit};

use crate::ports::Unavailable;
use crate::ports::signal::Signal;

const METRIC: &str = "WorkPerWorker";

pub struct CloudWatch {
    client: Client,
    namespace: String,
}

impl CloudWatch {
    pub fn new(sdk: &SdkConfig, namespace: &str) -> Self {
        Self { client: Client::new(sdk), namespace: namespace.to_owned() }
    }
}

#[async_trait]
impl Signal for CloudWatch {
    async fn publish(&self, work_per_worker: f64) -> Result<(), Unavailable> {
        let datum = MetricDatum::builder().metric_name(METRIC).value(work_per_worker).unit(StandardUnit::None).build();
        let request = self.client.put_metric_data().namespace(&self.namespace).metric_data(datum);
        let unavailable = |error| Unavailable(format!("CloudWatch: {}", DisplayErrorContext(&error)));
        request.send().await.map(drop).map_err(unavailable)
    }
}
