//! Configuration: one typed tree. Built-in defaults < TOML file < `FAASD_…` environment (`__` nests) < flags.
//!
//! This file is the tree and its defaults. Units are in the names: `_ms`, `_s`, `_bytes`, `_mb`.

mod access;
mod fleet;
mod hidden;
pub mod load;
mod validate;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::limits::Limits;

pub use access::{Audit, Auth, Jwt, key_set_url, without_brackets};
pub use fleet::{Aws, Backend, Dispatch, Fleet, Redis};
pub use hidden::Hidden;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Controller,
    Worker,
    Both,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Controller => "controller",
            Role::Worker => "worker",
            Role::Both => "both",
        }
    }
}

/// What to do where full isolation can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Refuse to start.
    Strict,
    /// Start with the strongest there is, and warn loudly.
    Auto,
}

/// How long idle sandboxes are kept, and which give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolPolicy {
    /// By each function's own calls.
    Adaptive,
    /// The same for all, and the longest idle gives way.
    Fixed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub role: Role,
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub isolation: Isolation,
    pub backend: Backend,
    pub limits: Limits,
    pub http: Http,
    pub tls: Tls,
    pub secrets: Secrets,
    pub auth: Auth,
    pub audit: Audit,
    pub rate_limit: RateLimit,
    pub sandbox: Sandbox,
    pub runtimes: Runtimes,
    pub pool: Pool,
    pub queue: Queue,
    pub aws: Aws,
    pub redis: Redis,
    pub fleet: Fleet,
    pub retention: Retention,
    pub disk: Disk,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: Role::Both,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data_dir: PathBuf::from("/var/lib/faasd"),
            isolation: Isolation::Strict,
            backend: Backend::Embedded,
            limits: Limits::default(),
            http: Http::default(),
            tls: Tls::default(),
            secrets: Secrets::default(),
            auth: Auth::default(),
            audit: Audit::default(),
            rate_limit: RateLimit::default(),
            sandbox: Sandbox::default(),
            runtimes: Runtimes::default(),
            pool: Pool::default(),
            queue: Queue::default(),
            aws: Aws::default(),
            redis: Redis::default(),
            fleet: Fleet::default(),
            retention: Retention::default(),
            disk: Disk::default(),
            shutdown: Shutdown::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Open connections; more are refused at once.
    pub connections_max: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout_ms: u64,
    /// From a request's head to the end of its body.
    pub body_timeout_ms: u64,
    /// A client that takes nothing of its answer for so long is cut off.
    pub write_timeout_ms: u64,
    /// A request's line and headers together; beyond it 431.
    pub head_bytes_max: usize,
    /// Open connections of one address, or of one /64 network of IPv6; more are refused at once. 0: as many as there are.
    pub connections_per_address: usize,
    /// Origins whose pages may use the API from a browser, each as `https://app.example.org`; none: no page may.
    pub cors_origins: Vec<String>,
    /// How long a synchronous caller waits beyond the function's own timeout, for a sandbox and for the way.
    pub sync_wait_extra_ms: u64,
    /// Synchronous calls admitted at once; beyond it 503.
    pub inflight_max: usize,
    /// Bearer token that may read `/metrics` from elsewhere than loopback; empty: only a key may.
    pub metrics_token: String,
    /// Addresses and networks (CIDR) of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            connections_max: 12_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            write_timeout_ms: 30_000,
            head_bytes_max: 32 * 1024,
            connections_per_address: 0,
            cors_origins: Vec::new(),
            sync_wait_extra_ms: 20_000,
            inflight_max: 16_384,
            metrics_token: String::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// HTTPS instead of HTTP, where a certificate is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and those that lead to its root; empty: plain HTTP.
    pub certificate: String,
    /// PEM file of its private key.
    pub key: String,
    /// From a connection's first byte to the end of its handshake.
    pub handshake_timeout_ms: u64,
    /// Handshakes under way; beyond it the oldest is ended.
    pub handshakes_max: usize,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: String::new(), key: String::new(), handshake_timeout_ms: 10_000, handshakes_max: 1024 }
    }
}

/// Where the keys come from that environment values are sealed with. Neither: `<data_dir>/secrets.key`, made at the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// File of keys, one a line in hex; the last seals, each opens.
    pub key_file: String,
    /// The same, separated by commas.
    pub key: Hidden,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    pub enabled: bool,
    /// Tokens a second, per key.
    pub rate: u32,
    /// Tokens a key that was silent has.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { enabled: false, rate: 50, burst: 3000 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// Name of the project's own group below each cgroup hierarchy's root (v1) or, on v2, below the daemon's own where nobody else is in that.
    pub cgroup_prefix: String,
    /// First host uid and gid of the range that sandboxes are given theirs from.
    pub uid_first: u32,
    /// Length of that range; two ids a sandbox.
    pub uid_count: u32,
    /// Whether an interpreter that can be forked is kept for it, instead of booting one for each sandbox.
    pub zygote: bool,
    /// Between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// How long a generic sandbox may take to say READY.
    pub start_timeout_ms: u64,
    /// How long user code may take to load.
    pub init_timeout_ms: u64,
    /// For compiling at deploy.
    pub build_timeout_ms: u64,
    pub build_memory_mb: u32,
    pub open_files_max: u64,
    /// Processors a sandbox may use when others are idle, at the least. Its share among busy ones is always in proportion to its memory
    /// (1 769 MB = one processor); 0 makes that a hard ceiling too, as on Lambda.
    pub cpu_ceiling_min: f64,
    /// Ceilings of each sandbox on the disk that holds `data_dir`; 0: none. All it can do there is read: code, libraries.
    pub io_read_bytes_per_s: u64,
    pub io_write_bytes_per_s: u64,
    /// Reads a second, and as many writes.
    pub io_operations_per_s: u64,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            cgroup_prefix: "faasd".to_owned(),
            uid_first: 1_600_000_000,
            uid_count: 65_536,
            zygote: true,
            grace_ms: 10_000,
            start_timeout_ms: 10_000,
            init_timeout_ms: 10_000,
            build_timeout_ms: 120_000,
            build_memory_mb: 1024,
            open_files_max: 1024,
            cpu_ceiling_min: 1.0,
            io_read_bytes_per_s: 0,
            io_write_bytes_per_s: 0,
            io_operations_per_s: 0,
        }
    }
}

/// Interpreters and compilers; empty means: find it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtimes {
    pub python: String,
    pub node: String,
    pub go: String,
    pub cxx: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Sandboxes alive at once.
    pub sandboxes_max: usize,
    /// Calls running at once; 0: 128 per processor.
    pub concurrency_max: usize,
    /// Sandboxes being started at once.
    pub starting_max: usize,
    /// Memory that sandboxes may be promised together; 0: eight tenths of the machine's.
    pub memory_budget_mb: u64,
    /// Sandboxes of one version at once.
    pub per_version_max: usize,
    /// Callers waiting for a sandbox; beyond it 503.
    pub waiters_max: usize,
    pub queue_wait_ms: u64,
    /// Generic sandboxes kept ready, per runtime.
    pub prewarmed_python: usize,
    pub prewarmed_nodejs: usize,
    pub prewarmed_native: usize,
    /// An idle sandbox is frozen after this.
    pub freeze_after_ms: u64,
    pub policy: PoolPolicy,
    /// An idle sandbox is ended after this; with the adaptive policy while its function's calls show no pattern.
    pub keep_alive_s: u64,
    /// The longest that the adaptive policy keeps one.
    pub keep_alive_max_s: u64,
    /// Disk for unpacked code; beyond it what no sandbox uses goes, longest unused first.
    pub code_cache_bytes: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            sandboxes_max: 1000,
            concurrency_max: 0,
            starting_max: 4,
            memory_budget_mb: 0,
            per_version_max: 256,
            waiters_max: 20_000,
            queue_wait_ms: 5_000,
            prewarmed_python: 2,
            prewarmed_nodejs: 1,
            prewarmed_native: 1,
            freeze_after_ms: 200,
            policy: PoolPolicy::Adaptive,
            keep_alive_s: 600,
            keep_alive_max_s: 1800,
            code_cache_bytes: 4 << 30,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// A lease that is not extended ends after this.
    pub visibility_s: u64,
    /// Attempts at a job that keeps failing for the platform's reasons or the function's.
    pub attempts_max: u32,
    /// Delay before the second attempt; it doubles from there.
    pub backoff_ms: u64,
    pub backoff_max_ms: u64,
    /// Jobs waiting or running; beyond it 503.
    pub jobs_max: u64,
    pub dead_letters_max: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            visibility_s: 30,
            attempts_max: 3,
            backoff_ms: 1000,
            backoff_max_ms: 60_000,
            jobs_max: 1_000_000,
            dead_letters_max: 100_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Results and idempotency keys.
    pub results_s: u64,
    /// Records as the logs show them, dead letters and artifacts nobody refers to.
    pub logs_s: u64,
    /// Records kept at most, oldest dropped first.
    pub records_max: u64,
    /// Size of the store's database; the oldest records are dropped at nine tenths of it, and writes refused at it.
    pub store_bytes_max: u64,
    /// How often what is over is cleared away.
    pub sweep_s: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { results_s: 3600, logs_s: 30 * 24 * 3600, records_max: 5_000_000, store_bytes_max: 10 << 30, sweep_s: 60 }
    }
}

/// The disk that the data directory is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// Bytes that are to stay free: below twice as many, what can be had again goes; below it, writes are refused. 0: neither.
    pub free_bytes_min: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { free_bytes_min: 256 << 20 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long running calls may take to finish after SIGTERM; what still runs then is given back or ended.
    pub drain_ms: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_ms: 30_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Between two looks at what every sandbox uses; 0: none.
    pub sample_ms: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { sample_ms: 1000 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as `tracing` reads it.
    pub level: String,
    /// One JSON object a line rather than text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false }
    }
}
