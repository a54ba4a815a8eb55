//! The fleet's backends: records, functions and keys in DynamoDB, jobs in SQS, artifacts in S3, and who else in AWS is told or tells.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::adapters::aws::address::ElasticIp;
use crate::adapters::aws::client;
use crate::adapters::aws::cloudwatch::CloudWatch;
use crate::adapters::aws::dynamodb::DynamoDb;
use crate::adapters::aws::instance::Ec2;
use crate::adapters::aws::logs::CloudWatchLogs;
use crate::adapters::aws::s3::Artifacts;
use crate::adapters::aws::sqs::{Queue, metrics::Metrics as QueueMetrics};
use crate::adapters::embedded::DataLock;
use crate::adapters::local_vault::LocalVault;
use crate::adapters::logged::Logged;
use crate::config::Config;
use crate::ports::address::Address;
use crate::ports::bus::{Bus, News, Subscription};
use crate::ports::clock::Clock;
use crate::ports::invocations::InvocationStore;
use crate::ports::record_log::RecordLog;
use crate::ports::signal::Signal;

use super::super::{StartError, identity, step};
use super::{Backends, Shared};

/// Last records on their way to the log.
const LOG_CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Opened {
    store: DynamoDb,
    log: Option<Arc<CloudWatchLogs>>,
    /// Code, cache and control groups below this data directory are this process's alone.
    _lock: DataLock,
}

impl Opened {
    pub async fn close(self) {
        self.store.close().await;
        // Whoever still holds it has nothing more to tell.
        if let Some(log) = self.log.and_then(Arc::into_inner) {
            log.close(LOG_CLOSE_WITHIN).await;
        }
    }
}

pub(super) async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    vault: Arc<LocalVault>,
    metrics: &prometheus::Registry,
) -> Result<Backends, StartError> {
    let lock = DataLock::take(&config.data_dir)?;
    let sdk = client::load(&config.aws).await;
    let cache: &Path = &config.data_dir.join("artifacts");
    let artifacts =
        Artifacts::open(&sdk, &config.aws, cache, clock.clone()).map_err(step("open the artifact cache"))?;
    let artifacts = Arc::new(artifacts);
    let store = DynamoDb::open(&sdk, config, clock.clone(), vault, artifacts.clone(), metrics)
        .map_err(step("register the store's metrics"))?;
    let queue_metrics = QueueMetrics::new(metrics).map_err(step("register the queue's metrics"))?;
    let letters = store.dead_letters.clone();
    let queue = Queue::open(&sdk, config, letters.clone(), artifacts.clone(), clock.clone(), queue_metrics)
        .map_err(step("open the queue"))?;
    let mut invocations: Arc<dyn InvocationStore> = store.invocations.clone();
    let mut log = None;
    if !config.aws.log_group.is_empty() {
        let stream = identity::instance(&config.data_dir);
        let opened = CloudWatchLogs::start(&sdk, &config.aws.log_group, &stream, clock.clone(), metrics);
        let opened = Arc::new(opened.map_err(step("register the record log's metrics"))?);
        invocations = Arc::new(Logged::new(invocations, opened.clone() as Arc<dyn RecordLog>));
        log = Some(opened);
    }
    let mut signal: Option<Arc<dyn Signal>> = None;
    if !config.aws.metrics_namespace.is_empty() {
        let opened = CloudWatch::new(&sdk, &config.aws.metrics_namespace, clock.clone());
        signal = Some(Arc::new(opened.map_err(step("set up the scaling figure"))?));
    }
    let instance = Ec2::new(&sdk, None, None, clock.clone()).map_err(step("ask the instance's metadata"))?;
    let instance = Arc::new(instance);
    let mut address = None;
    if !config.aws.elastic_ip_allocation.is_empty() {
        let opened = ElasticIp::new(&sdk, &config.aws.elastic_ip_allocation, instance.clone(), clock);
        let opened: Arc<dyn Address> = Arc::new(opened.map_err(step("set up the fleet's address"))?);
        address = Some((opened, store.locks.clone()));
    }
    Ok(Backends {
        invocations,
        queue: Arc::new(queue),
        dead_letters: letters,
        registry: store.registry.clone(),
        keys: store.keys.clone(),
        lessons: store.lessons.clone(),
        spare: artifacts.spare(),
        artifacts,
        bus: Arc::new(Deaf(crate::adapters::local::bus::LocalBus::new())),
        shared: Shared { signal, instance: Some(instance), address, ..Shared::default() },
        opened: super::Opened { aws: Some(Opened { store, log, _lock: lock }), ..super::Opened::default() },
    })
}

/// Where there is no Redis: news of this process alone, so that whoever keeps copies must look for itself.
struct Deaf(crate::adapters::local::bus::LocalBus);

#[async_trait]
impl Bus for Deaf {
    fn publish(&self, news: News) {
        self.0.publish(news);
    }

    fn subscribe(&self) -> Box<dyn Subscription> {
        self.0.subscribe()
    }
}
