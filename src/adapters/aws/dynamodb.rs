//! The fleet's store: DynamoDB for functions, invocation records, keys, lessons, dead letters and locks.
//!
//! ```text
//!  create, start, finish ──conditional write──▶ invocations ──▶ by_owner, by_function, by_time
//!  finish_behind ──▶ behind: 48 writers ─────▶      │      └──▶ by_state, by_failure (not of what succeeds)
//!                                                   └─ large ──▶ artifacts
//! ```
//!
//! Many nodes write at once, so whatever is decided is decided by a condition of DynamoDB's: what a node has read before may be
//! over. What ends by age has the attribute `ttl` and is looked at by the clock as well, because DynamoDB deletes late. A listing is
//! a query of one index, never a scan of a table; an index lags behind its table by some milliseconds.

mod behind;
mod compact;
mod create;
mod database;
mod errors;
mod invocations;
mod item;
mod keys;
mod lessons;
mod letters;
mod listing;
mod locks;
pub mod metrics;
mod records;
mod registry;
pub mod tables;
mod walk;

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;

use crate::config::Config;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::clock::Clock;
use crate::ports::invocations::InvocationStore;
use crate::ports::keys::KeyStore;
use crate::ports::lessons::Lessons;
use crate::ports::locks::Locks;
use crate::ports::registry::Registry;
use crate::ports::vault::Vault;

use behind::Behind;
use database::Database;
use invocations::{Invocations, Rows};
use keys::Keys;
use lessons::LessonItems;
use locks::ItemLocks;
use metrics::{Count, Metrics};
use records::Records;
use registry::Functions;

pub use create::{Made, create_tables};
pub use letters::Letters;

/// The keys alone, for whoever is no node.
pub fn keys(client: Client, table_prefix: &str) -> impl KeyStore {
    Keys::new(Arc::new(Database::new(client, table_prefix)))
}

/// The open store: a handle for each port. The handles stay usable until [`DynamoDb::close`].
pub struct DynamoDb {
    pub invocations: Arc<dyn InvocationStore>,
    pub registry: Arc<dyn Registry>,
    pub keys: Arc<dyn KeyStore>,
    pub lessons: Arc<dyn Lessons>,
    pub locks: Arc<dyn Locks>,
    /// Whoever buries a job writes the letter here.
    pub dead_letters: Arc<Letters>,
    behind: Arc<Behind>,
    uses: Arc<Keys>,
}

impl DynamoDb {
    /// Asks nothing yet: whether the tables are there shows at the first request. Within an async runtime.
    ///
    /// # Errors
    /// Metrics that are registered twice.
    pub fn open(
        sdk: &SdkConfig,
        config: &Config,
        clock: Arc<dyn Clock>,
        vault: Arc<dyn Vault>,
        artifacts: Arc<dyn ArtifactStore>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(metrics)?;
        let client = Client::from_conf(Builder::from(sdk).interceptor(Count(metrics.requests.clone())).build());
        let database = Arc::new(Database::new(client, &config.aws.table_prefix));
        let records = Records::new(artifacts.clone(), &config.retention);
        let rows = Arc::new(Rows { database: database.clone(), records, clock: clock.clone() });
        let behind = Behind::start(rows.clone(), metrics);
        let keys = Arc::new(Keys::new(database.clone()));
        let logs_s = config.retention.logs_s;
        Ok(Self {
            invocations: Arc::new(Invocations::new(rows, behind.clone())),
            registry: Arc::new(Functions::new(database.clone(), clock.clone(), vault, logs_s)),
            keys: keys.clone(),
            lessons: Arc::new(LessonItems::new(database.clone(), clock.clone(), logs_s)),
            locks: Arc::new(ItemLocks::new(database.clone(), clock.clone())),
            dead_letters: Arc::new(Letters::new(database, artifacts, clock, config)),
            behind,
            uses: keys,
        })
    }

    /// Refuses new records behind, and writes what was accepted.
    pub async fn close(&self) {
        self.behind.close().await;
        self.uses.flush().await;
    }
}
