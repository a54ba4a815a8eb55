//! Where a node keeps what it keeps, and what it shares with others: the ports, filled by what the configuration names.

#[cfg(feature = "aws")]
mod aws;

use std::sync::Arc;

use crate::adapters::embedded::Embedded;
use crate::adapters::local_vault::LocalVault;
#[cfg(feature = "redis")]
use crate::adapters::redis::{Hears, Redis};
use crate::config::{Backend, Config, Role};
use crate::ports::address::Address;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::buckets::Buckets;
use crate::ports::bus::Bus;
use crate::ports::claims::Claims;
use crate::ports::clock::Clock;
use crate::ports::disk::Spare;
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
    /// Where callers find the fleet, with the locks that its lease is one of.
    pub address: Option<(Arc<dyn Address>, Arc<dyn Locks>)>,
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
    /// What gives room back to a disk that fills.
    pub spare: Arc<dyn Spare>,
    opened: Opened,
}

/// What has to be closed at the end.
#[derive(Default)]
struct Opened {
    embedded: Option<Embedded>,
    #[cfg(feature = "aws")]
    aws: Option<aws::Opened>,
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
            #[cfg(feature = "aws")]
            Backend::Aws => aws::open(config, clock, vault, metrics).await?,
            #[cfg(not(feature = "aws"))]
            Backend::Aws => return Err(StartError::Backend("aws")),
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
        let hears = if config.role == Role::Worker { Hears::AllButEnds } else { Hears::All };
        let redis = Redis::open(&config.redis, hears, metrics).map_err(super::step("set up Redis"))?;
        self.bus = redis.bus.clone();
        self.shared.claims = Some(redis.claims.clone());
        self.shared.roster = Some(redis.roster.clone());
        self.shared.locks = Some(redis.locks.clone());
        // A node that is alone keeps its limits itself.
        self.shared.buckets = (config.backend == Backend::Aws).then(|| redis.buckets.clone());
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
        if let Some(store) = self.opened.aws {
            store.close().await;
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
        spare: store.spare(),
        opened: Opened { embedded: Some(store), ..Opened::default() },
    })
}
