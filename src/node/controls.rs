//! The controller's role: the API, on whatever runs its calls.

use std::sync::{Arc, Weak};

use crate::adapters::audit_file::AuditFile;
use crate::adapters::key_set_file::KeySetFile;
use crate::adapters::key_set_web::KeySetWeb;
use crate::adapters::local::Local;
use crate::config::{Backend, Config, Jwt};
use crate::controller::auth::Tokens;
use crate::controller::{self, Controller, ControllerPorts};
use crate::domain::ids::WorkerId;
use crate::fleet::{self, AddressPorts, Fleet, FleetPorts, FleetTls, Keeper, Scaling, Secret, Together};
use crate::ports::clock::Clock;
use crate::ports::disk::Disk;
use crate::ports::executor::{Builder, Executor, LogSinks};
use crate::ports::key_set::{KeySetError, KeySetSource};
use crate::worker::Worker;

use super::backends::Backends;
use super::leader::{self, Leader};
use super::packages::ZipPackages;
use super::works::AbortOnDrop;
use super::{StartError, step};

pub(super) struct Controls {
    pub controller: Arc<Controller>,
    /// Path of the admin key is told, if this start made it.
    pub new_key: Option<std::path::PathBuf>,
    /// Who sees to it that one controller has the fleet's address, where it has one.
    pub keeper: Option<Arc<Keeper>>,
    _scaling: Option<AbortOnDrop>,
    /// What one controller does for the fleet.
    _led: Vec<AbortOnDrop>,
}

/// What runs a controller's calls.
pub(super) struct Runs {
    pub executor: Arc<dyn Executor>,
    pub builder: Arc<dyn Builder>,
    /// Where there are other nodes: what their calls are counted by.
    pub fleet: Option<Arc<fleet::Metrics>>,
}

impl Runs {
    /// The worker of this process, and nobody else.
    pub fn own(worker: Arc<Worker>) -> Self {
        Self { executor: worker.clone(), builder: worker, fleet: None }
    }

    /// The workers of other processes; before them that of this one, if it has one.
    pub fn fleet(
        backends: &Backends,
        config: &Arc<Config>,
        clock: Arc<dyn Clock>,
        metrics: Arc<fleet::Metrics>,
        own: Option<(WorkerId, Arc<Worker>)>,
    ) -> Result<Self, StartError> {
        let roster = backends.shared.roster.clone().unwrap_or_else(|| {
            tracing::warn!("no redis.url: no worker is heard of, and synchronous calls go through the queue");
            Local::new(clock.clone()).roster
        });
        let ports = FleetPorts {
            claims: backends.shared.claims.clone(),
            roster,
            clock,
            metrics: metrics.clone(),
            secret: Secret::open(&config.fleet)?,
            tls: FleetTls::open(config)?,
            own: own.as_ref().map(|(id, _)| *id),
        };
        let fleet = Fleet::new(ports, config.clone());
        Ok(match own {
            None => Self { executor: fleet.clone(), builder: fleet, fleet: Some(metrics) },
            Some((_, worker)) => {
                let together = Together::new(worker, fleet);
                Self { executor: together.clone(), builder: together, fleet: Some(metrics) }
            }
        })
    }
}

impl Controls {
    #[allow(clippy::too_many_arguments, reason = "each is a part of what a controller is, used once, at its start")]
    pub async fn build(
        backends: &Backends,
        config: &Arc<Config>,
        runs: Runs,
        id: WorkerId,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        packages: Arc<ZipPackages>,
        metrics: prometheus::Registry,
    ) -> Result<Self, StartError> {
        let tokens = tokens(&config.auth.jwt, clock.monotonic()).await?;
        let audit = AuditFile::open(&config.data_dir, config.audit.clone()).map_err(step("open the audit log"))?;
        let scaling = runs.fleet.map(|metrics| Scaling {
            queue: backends.queue.clone(),
            executor: runs.executor.clone(),
            metrics,
            locks: backends.shared.locks.clone(),
            signal: backends.shared.signal.clone(),
            holder: id.to_string(),
        });
        let controller = Controller::new(
            ControllerPorts {
                registry: backends.registry.clone(),
                invocations: backends.invocations.clone(),
                queue: backends.queue.clone(),
                dead_letters: backends.dead_letters.clone(),
                artifacts: backends.artifacts.clone(),
                keys: backends.keys.clone(),
                tokens,
                audit: Arc::new(audit),
                bus: backends.bus.clone(),
                buckets: backends.shared.buckets.clone(),
                clock: clock.clone(),
                executor: runs.executor,
                builder: runs.builder,
                packages,
                roster: backends.shared.roster.clone(),
                disk,
                node_id: id,
            },
            config.clone(),
            metrics.clone(),
        );
        let keeper = backends.shared.address.clone().map(|(address, locks)| {
            let readiness = controller.clone();
            let ports = AddressPorts { address, locks, readiness, clock: clock.clone(), holder: id.to_string() };
            Keeper::new(ports, &metrics)
        });
        let new_key = controller::auth::ensure_admin_key(backends.keys.as_ref(), &config.data_dir, clock.now())
            .await
            .map_err(step("make the admin key"))?;
        controller.audit_start(config, new_key.is_some()).await.map_err(step("begin the audit log"))?;
        let scaling = scaling.map(|scaling| AbortOnDrop(tokio::spawn(fleet::scale(scaling)).abort_handle()));
        let led = led(backends, config, id, &controller);
        Ok(Self { controller, new_key, keeper, _scaling: scaling, _led: led })
    }

    /// Who hears what asynchronous invocations print.
    pub fn listeners(&self) -> Weak<dyn LogSinks> {
        Arc::downgrade(&(self.controller.clone() as Arc<dyn LogSinks>))
    }
}

/// A node that shares its store does some works for others too. What the embedded store needs of this it does itself.
fn led(backends: &Backends, config: &Config, id: WorkerId, controller: &Arc<Controller>) -> Vec<AbortOnDrop> {
    if config.backend != Backend::Aws {
        return Vec::new();
    }
    let leader = Leader { locks: backends.shared.locks.clone(), holder: id.to_string() };
    vec![
        leader::end_abandoned(&leader, Arc::downgrade(controller)),
        #[cfg(feature = "aws")]
        leader::keep_code(&leader, backends.registry.clone(), backends.artifacts.clone()),
    ]
}

/// What checks tokens, where they are accepted. A key set that can't be had now is no reason not to start.
async fn tokens(config: &Jwt, now: std::time::Duration) -> Result<Option<Tokens>, StartError> {
    let source = if config.enabled { key_set(config).map_err(step("set up auth.jwt.jwks_url"))? } else { None };
    let tokens = Tokens::new(config, source).map_err(step("set up auth.jwt"))?;
    if let Some(tokens) = &tokens
        && let Err(error) = tokens.prepare(now).await
    {
        tracing::warn!(%error, "the key set for tokens can't be had yet; it is asked for again when a token comes");
    }
    Ok(tokens)
}

fn key_set(config: &Jwt) -> Result<Option<Arc<dyn KeySetSource>>, KeySetError> {
    if !config.jwks_file.as_os_str().is_empty() {
        return Ok(Some(Arc::new(KeySetFile::new(config.jwks_file.clone()))));
    }
    if config.jwks_url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(KeySetWeb::new(&config.jwks_url, &config.jwks_ca_file)?)))
}
