//! The fleet's Redis: news, claims, heartbeats, rate limits and locks. Nothing in it has to last: what it forgets comes again, or is asked of the store.
//!
//! ```text
//! ports ──▶ commands ──▶ one connection, pipelined: never waits for Redis to come back, gives up after command_timeout_ms
//! bus   ──▶ outgoing queue (bounded) ──▶ commands
//!       ◀── listener: another connection, subscribed again after each reconnect
//! watch ──▶ a message to ourselves each second, through both ──▶ Bus::reach
//! ```
//!
//! A command that was given up may still run, at once or not at all: a claim taken twice is refused by its worker, a lock is fenced, a draw costs
//! tokens, a heartbeat and an offer are right when they come late, or forgotten soon. All keys of one script share a hash tag, so that a
//! cluster has them on one node. Keys and channels: docs/redis.md.

mod buckets;
mod bus;
mod claims;
mod commands;
mod connect;
mod locks;
pub mod metrics;
mod outgoing;
mod roster;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config;
use crate::ports::buckets::Buckets;
use crate::ports::bus::Bus;
use crate::ports::claims::Claims;
use crate::ports::locks::Locks;
use crate::ports::roster::Roster;

use commands::Commands;
use metrics::Metrics;

/// Why the configuration of Redis can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Without its text: it may hold a password.
    #[error("redis.url can't be read: {0}")]
    Url(String),
    #[error("read redis.ca_file {path}: {cause}")]
    Certificates { path: String, cause: String },
    #[error("set up TLS to Redis: {0}")]
    Tls(String),
    #[error("set up the client of Redis: {0}")]
    Client(String),
    #[error("register the metrics of Redis: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Which news a node wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    All,
    /// Nobody here waits for the end of a call. There are many such nodes, and of all news most say that one has ended.
    AllButEnds,
}

/// A handle for each port. They stop working when this is dropped.
pub struct Redis {
    pub bus: Arc<dyn Bus>,
    pub claims: Arc<dyn Claims>,
    pub roster: Arc<dyn Roster>,
    pub buckets: Arc<dyn Buckets>,
    pub locks: Arc<dyn Locks>,
    /// What keeps the connections up; ends with this.
    _tasks: JoinSet<()>,
}

impl Redis {
    /// Begins to connect, in the background and for ever: Redis need not be there. Needs an async runtime.
    ///
    /// # Errors
    /// If the configuration can't be used, whatever Redis says.
    pub fn open(config: &config::Redis, hears: Hears, metrics: &prometheus::Registry) -> Result<Self, OpenError> {
        let metrics = Metrics::new(metrics)?;
        let mut tasks = JoinSet::new();
        let clients = connect::clients(config)?;
        let timeout = Duration::from_millis(config.command_timeout_ms);
        let commands = Commands::new(&clients.commands, timeout, metrics.clone());
        let prefix: Arc<str> = config.key_prefix.as_str().into();
        let node = Uuid::new_v4();
        let watch = watch::Watch::new(metrics.clone());
        let (bus, sender) =
            bus::RedisBus::new(prefix.clone(), node, hears, commands.clone(), watch.clone(), metrics.clone());
        // All listen before anything connects: no first event is missed.
        tasks.spawn(sender);
        tasks.spawn(bus.clone().listen(clients.listener.clone(), timeout));
        tasks.spawn(watch.probe(bus.echo_channel(), commands.clone(), clients.listener.clone(), timeout));
        tasks.spawn(connect::keep_connected(clients.commands, "commands", metrics.clone()));
        tasks.spawn(connect::keep_connected(clients.listener, "listener", metrics));
        Ok(Self {
            claims: Arc::new(claims::RedisClaims::new(prefix.clone(), commands.clone())),
            roster: Arc::new(roster::RedisRoster::new(prefix.clone(), commands.clone())),
            buckets: Arc::new(buckets::RedisBuckets::new(prefix.clone(), node, commands.clone())),
            locks: Arc::new(locks::RedisLocks::new(prefix, commands)),
            bus,
            _tasks: tasks,
        })
    }
}
