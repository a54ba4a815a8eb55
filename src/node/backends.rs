//! Where a node keeps what it keeps, and what it shares with others: the ports, filled by what the configuration names.

use std::sync::Arc;

use crate::adapters::embedded::Embedded;
use crate::adapters::local::bus::LocalBus;
use crate::adapters::local_vault::LocalVault;
use crate::adapters::private_files::private_dir;
#[cfg(feature = "redis")]
use crate::adapters::redis::Redis;
use crate::config::{Backend, Config};
use crate::ports::artifacts::ArtifactStore;
use crate::ports::buckets::Buckets;
use crate::ports::bus::Bus;
use crate::ports::claims::Claims;
use crate::ports::clock::Clock;
use crate::ports::instance::Instance;
use crate::ports::invocations::InvocationStore;
use crate::ports::keys::KeyStore;
use crate::ports::lessons::Lessons;
use crate::ports::locks::Locks;
use crate::ports::queue::{DeadLetters, JobQueue};
use crate::ports::registry::Registry;
use crate::ports::roster::Roster;
use crate::ports::signal::Signal;

use super::StartError;

/// What nodes tell each other through; each is `None` where there is nothing to tell it through.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub claims: Option<Arc<dyn Claims>>,
    pub roster: Option<Arc<dyn Roster>>,
    pub locks: Option<Arc<dyn Locks>>,
    pub buckets: Option<Arc<dyn Buckets>>,
    pub signal: Option<Arc<dyn Signal>>,
    /// What this node's machine is told of itself.
    pub instance: Option<Arc<dyn Instance>>,
}

pub(super) struct Backends {
    pub invocations: Arc<dyn InvocationStore>,
    pub queue: Arc<dyn JobQueue>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub registry: Arc<dyn Registry>,
    pub keys: Arc<dyn KeyStore>,
    pub lessons: Arc<dyn Lessons>,
    pub artifacts: Arc<dyn ArtifactStore>,
    pub bus: Arc<dyn Bus>,
    pub shared: Shared,
    opened: Opened,
}

/// What has to be closed at the end.
struct Opened {
    embedded: Option<Embedded>,
    #[cfg(feature = "aws")]
    records: Option<crate::adapters::aws::dynamodb::DynamoDb>,
    #[cfg(feature = "redis")]
    _redis: Option<Redis>,
}

impl Backends {
    pub async fn open(
        config: &Config,
        clock: Arc<dyn Clock>,
        vault: Arc<LocalVault>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let mut backends = match config.backend {
            Backend::Embedded => embedded(config, clock, vault, metrics).await?,
            Backend::Aws => aws(config, clock, vault, metrics).await?,
        };
        backends.share(config, metrics)?;
        Ok(backends)
    }

    /// News, claims and heartbeats go through Redis where there is one.
    #[cfg(feature = "redis")]
    fn share(&mut self, config: &Config, metrics: &prometheus::Registry) -> Result<(), StartError> {
        if config.redis.url.is_empty() {
            return Ok(());
        }
        let redis = Redis::open(&config.redis, metrics).map_err(super::step("set up Redis"))?;
        self.bus = redis.bus.clone();
        self.shared.claims = Some(redis.claims.clone());
        self.shared.roster = Some(redis.roster.clone());
        self.shared.locks = Some(redis.locks.clone());
        self.shared.buckets = Some(redis.buckets.clone());
        self.opened._redis = Some(redis);
        Ok(())
    }

    /// The configuration names no Redis: a build without it refuses one.
    #[cfg(not(feature = "redis"))]
    fn share(&mut self, _config: &Config, _metrics: &prometheus::Registry) -> Result<(), StartError> {
        Ok(())
    }

    /// Writes what is still to be written.
    pub async fn close(self) {
        if let Some(store) = self.opened.embedded {
            store.close().await;
        }
        #[cfg(feature = "aws")]
        if let Some(records) = self.opened.records {
            records.close().await;
        }
    }
}

async fn embedded(
    config: &Config,
    clock: Arc<dyn Clock>,
    vault: Arc<LocalVault>,
    metrics: &prometheus::Registry,
) -> Result<Backends, StartError> {
    let store = Embedded::open_metered(&config.data_dir, config, clock.clone(), vault, metrics)?;
    match store.end_abandoned(clock.now()).await {
        Ok(0) => {}
        Ok(records) => tracing::warn!(records, "ended calls that the last run left half-way"),
        Err(error) => tracing::warn!(%error, "calls that the last run left half-way stay open"),
    }
    Ok(Backends {
        invocations: store.invocations.clone(),
        queue: store.queue.clone(),
        dead_letters: store.dead_letters.clone(),
        registry: store.registry.clone(),
        keys: store.keys.clone(),
        lessons: store.lessons.clone(),
        artifacts: store.artifacts.clone(),
        bus: store.bus.clone(),
        shared: Shared::default(),
        opened: Opened {
            embedded: Some(store),
            #[cfg(feature = "aws")]
            records: None,
            #[cfg(feature = "redis")]
            _redis: None,
        },
    })
}

/// Artifacts that were read lie below the data directory, each node's its own.
#[cfg(feature = "aws")]
async fn aws(
    config: &Config,
    clock: Arc<dyn Clock>,
    vault: Arc<LocalVault>,
    metrics: &prometheus::Registry,
) -> Result<Backends, StartError> {
    use crate::adapters::aws;
    use super::step;

    private_dir(&config.data_dir).map_err(step("prepare the data directory"))?;
    let sdk = aws::client::load(&config.aws).await;
    let cache = config.data_dir.join("artifact-cache");
    let artifacts: Arc<dyn ArtifactStore> = Arc::new(
        aws::s3::Artifacts::open(&sdk, &config.aws, &cache, clock.clone()).map_err(step("open the artifact cache"))?,
    );
    let records = aws::dynamodb::DynamoDb::open(&sdk, config, clock.clone(), vault, artifacts.clone(), metrics)
        .map_err(step("open the store"))?;
    let letters = records.dead_letters.clone();
    let counts = aws::sqs::metrics::Metrics::new(metrics).map_err(step("register the queue's metrics"))?;
    let queue = aws::sqs::Queue::open(&sdk, config, letters.clone(), artifacts.clone(), clock.clone(), counts)
        .map_err(step("open the queue"))?;
    let namespace = &config.aws.metrics_namespace;
    let signal = (!namespace.is_empty())
        .then(|| Arc::new(aws::cloudwatch::CloudWatch::new(&sdk, namespace)) as Arc<dyn Signal>);
    let instance = aws::instance::Ec2::new(&sdk, None, None, clock).map_err(step("ask the instance's metadata"))?;
    Ok(Backends {
        invocations: records.invocations.clone(),
        queue: Arc::new(queue),
        dead_letters: letters,
        registry: records.registry.clone(),
        keys: records.keys.clone(),
        lessons: records.lessons.clone(),
        artifacts,
        bus: Arc::new(LocalBus::new()),
        shared: Shared { signal, instance: Some(Arc::new(instance)), ..Shared::default() },
        opened: Opened {
            embedded: None,
            records: Some(records),
            #[cfg(feature = "redis")]
            _redis: None,
        },
    })
}

/// The configuration is refused before this is asked.
#[cfg(not(feature = "aws"))]
async fn aws(
    _config: &Config,
    _clock: Arc<dyn Clock>,
    _vault: Arc<LocalVault>,
    _metrics: &prometheus::Registry,
) -> Result<Backends, StartError> {
    Err(StartError::Backend("aws"))
}
