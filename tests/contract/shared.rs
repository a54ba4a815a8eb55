//! Worlds of what nodes share: one process that holds it itself, and nodes around one Redis.

use std::sync::Arc;
use std::time::Duration;

use faasd::adapters::local::Local;
use faasd::adapters::redis::{Hears, Redis};
use faasd::config;
use faasd::ports::buckets::Buckets;
use faasd::ports::bus::{Bus, Reach};
use faasd::ports::claims::Claims;
use faasd::ports::locks::Locks;
use faasd::ports::roster::Roster;
use tokio::sync::Mutex;

use crate::support::redis::{Builder, Cluster, RedisServer};

#[cfg(feature = "aws")]
use super::aws::{AwsWorld, OnFast};
use super::clock::ShiftedClock;
#[cfg(feature = "aws")]
use super::world::World;

/// A connection is there in milliseconds; a busy machine takes longer.
const UP_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the default: these tests are about what is answered, not how soon.
const PATIENT_MS: u64 = 10_000;

/// What one node has of what all share.
pub struct Node {
    pub bus: Arc<dyn Bus>,
    pub claims: Arc<dyn Claims>,
    pub roster: Arc<dyn Roster>,
    pub buckets: Arc<dyn Buckets>,
    pub locks: Arc<dyn Locks>,
    /// Holds the connections.
    _redis: Option<Redis>,
}

impl Node {
    /// A node whose Redis may not be there.
    pub fn open(config: &config::Redis) -> Self {
        let redis = Redis::open(config, Hears::All, &prometheus::Registry::new()).unwrap();
        Self {
            bus: redis.bus.clone(),
            claims: redis.claims.clone(),
            roster: redis.roster.clone(),
            buckets: redis.buckets.clone(),
            locks: redis.locks.clone(),
            _redis: Some(redis),
        }
    }

    /// A node that is connected.
    pub async fn connected(config: &config::Redis) -> Self {
        let node = Self::open(config);
        node.wait_up().await;
        node
    }

    pub async fn wait_up(&self) {
        self.wait_health(true).await;
    }

    pub async fn wait_down(&self) {
        self.wait_health(false).await;
    }

    /// How Redis was a second ago at most.
    pub fn reach(&self) -> Reach {
        self.bus.reach().expect("it is on Redis")
    }

    async fn wait_health(&self, is_up: bool) {
        let changed = async {
            while self.reach().is_up != is_up {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(UP_LIMIT, changed).await;
        assert!(in_time.is_ok(), "after {UP_LIMIT:?} Redis is {:?}", self.reach());
    }
}

/// What nodes share, empty when opened.
pub trait SharedWorld: Sized {
    async fn open() -> Self;

    /// One more node.
    async fn node(&self) -> Node;

    /// That much time is over for what they share when this returns.
    async fn pass(&self, time: Duration);
}

pub struct LocalWorld {
    clock: Arc<ShiftedClock>,
    local: Local,
}

impl SharedWorld for LocalWorld {
    async fn open() -> Self {
        let clock = ShiftedClock::new();
        Self { local: Local::new(clock.clone()), clock }
    }

    async fn node(&self) -> Node {
        let Local { bus, claims, roster, buckets, locks } = self.local.clone();
        Node { bus, claims, roster, buckets, locks, _redis: None }
    }

    async fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }
}

/// One server, whose clock is put forward.
pub struct RedisWorld {
    server: RedisServer,
    shift: Mutex<Duration>,
}

impl SharedWorld for RedisWorld {
    async fn open() -> Self {
        Self { server: Builder::default().own_clock().start(), shift: Mutex::default() }
    }

    async fn node(&self) -> Node {
        Node::connected(&patient(self.server.url())).await
    }

    async fn pass(&self, time: Duration) {
        let mut shift = self.shift.lock().await;
        *shift += time;
        self.server.shift_clock(*shift);
    }
}

/// Three masters, on the machine's time.
pub struct ClusterWorld(pub Cluster);

impl SharedWorld for ClusterWorld {
    async fn open() -> Self {
        Self(Cluster::start())
    }

    async fn node(&self) -> Node {
        Node::connected(&patient(self.0.url())).await
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

pub fn patient(url: String) -> config::Redis {
    config::Redis { url, command_timeout_ms: PATIENT_MS, ..config::Redis::default() }
}

/// Locks as items of a table, by nodes that each watch it by themselves; the rest in this process.
#[cfg(feature = "aws")]
pub struct ItemWorld {
    store: AwsWorld<OnFast>,
    local: LocalWorld,
}

#[cfg(feature = "aws")]
impl SharedWorld for ItemWorld {
    async fn open() -> Self {
        let store = <AwsWorld<OnFast> as World>::open(config::Config::default()).await;
        Self { store, local: LocalWorld::open().await }
    }

    async fn node(&self) -> Node {
        let locks = self.store.another(&prometheus::Registry::new()).locks.clone();
        Node { locks, ..self.local.node().await }
    }

    async fn pass(&self, time: Duration) {
        World::pass(&self.store, time).await;
    }
}
