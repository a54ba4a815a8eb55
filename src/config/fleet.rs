//! What makes a node one of many: where they keep what they share, and how they know and reach each other.

use serde::{Deserialize, Serialize};

use super::Hidden;

/// Where functions, records, jobs and artifacts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In `data_dir`, by this process alone.
    Embedded,
    /// In DynamoDB, SQS and S3, shared by a fleet.
    Aws,
}

/// How a synchronous call comes to a worker of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// Straight to it; through the queue where none can be reached.
    Direct,
    /// Always through the queue.
    Queue,
}

/// Region, credentials and endpoints come from where every AWS client takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// What the names of the tables begin with.
    pub table_prefix: String,
    /// S3 bucket of artifacts.
    pub bucket: String,
    /// What the keys in it begin with.
    pub bucket_prefix: String,
    /// URL of the job queue. A name that ends in `.fifo` is used as a FIFO queue.
    pub queue_url: String,
    /// URL of the queue where SQS puts messages that no worker survived; empty: there is none.
    pub dead_letter_queue_url: String,
    /// How long a message or a deletion waits for others to go with it.
    pub linger_ms: u64,
    /// From a request's start to its end, tries included; a long poll has its wait on top.
    pub operation_timeout_ms: u64,
    /// CloudWatch namespace of the scaling figure; empty: it is not published.
    pub metrics_namespace: String,
    /// CloudWatch Logs group of final records; empty: they are not sent there.
    pub log_group: String,
    /// Allocation of the Elastic IP at which callers find the fleet: `eipalloc-…`. One of the controllers that are ready has it; empty: there
    /// is none.
    pub elastic_ip_allocation: String,
    /// Disk for artifacts that were read; beyond it the longest unused go.
    pub cache_bytes: u64,
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            table_prefix: "faasd".to_owned(),
            bucket: String::new(),
            bucket_prefix: String::new(),
            queue_url: String::new(),
            dead_letter_queue_url: String::new(),
            linger_ms: 2,
            operation_timeout_ms: 10_000,
            metrics_namespace: String::new(),
            log_group: String::new(),
            elastic_ip_allocation: String::new(),
            cache_bytes: 2 << 30,
        }
    }
}

/// The Redis that nodes tell each other news through. Without one they find out by asking the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://`, `rediss://` (TLS), `redis-cluster://`, `redis-sentinel://…?sentinelServiceName=NAME`; empty: no Redis.
    pub url: String,
    /// ACL user; empty: the default one.
    pub username: String,
    pub password: Hidden,
    /// PEM file of certificates that its certificate is checked by, instead of the system's.
    pub ca_file: String,
    /// What all keys and channels begin with.
    pub key_prefix: String,
    /// A command that takes longer has failed.
    pub command_timeout_ms: u64,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: String::new(),
            password: Hidden::default(),
            ca_file: String::new(),
            key_prefix: "faasd".to_owned(),
            command_timeout_ms: 500,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    pub dispatch: Dispatch,
    /// Where a node in role "both" listens for the controllers of other nodes; empty: they don't call it. A worker does so at `listen`.
    pub listen: String,
    /// Address and port at which controllers reach this worker; empty: where it listens for them.
    pub advertise: String,
    /// What nodes prove to each other that they are of one fleet with. The same on all of them, at least 32 characters.
    pub secret: Hidden,
    /// File that holds it instead.
    pub secret_file: String,
    /// PEM file of the certificates that nodes' certificates are checked by, in both directions; empty: plain HTTP between nodes.
    pub ca_file: String,
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// A worker that hears from no roster, queue or controller for so long takes no new work until it does; 0: it goes on.
    pub alone_after_s: u64,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            dispatch: Dispatch::Direct,
            listen: String::new(),
            advertise: String::new(),
            secret: Hidden::default(),
            secret_file: String::new(),
            ca_file: String::new(),
            heartbeat_ms: 2_000,
            alone_after_s: 30,
        }
    }
}
