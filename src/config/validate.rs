//! The rules that a configuration keeps beyond its types. All broken ones are told, each under the key to change.

mod fleet;

use std::path::Path;

use ipnet::IpNet;

use crate::domain::key::Scope;

use super::Config;

/// Sandboxes have uids and gids of their own from here up, clear of the host's users.
const UID_FIRST_MIN: u32 = 65_536;
/// The kernel keeps the last id for "none".
const UID_END_MAX: u64 = u32::MAX as u64;
/// SQS's longest, which the embedded queue keeps to as well.
const VISIBILITY_S_MAX: u64 = 12 * 3600;
/// A call's longest time and its grace must fit a working day; longer is a mistyped unit.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// A year: longer is a mistyped unit.
const KEEP_ALIVE_S_MAX: u64 = 366 * 24 * 3600;
/// A token that is easy to guess is as good as none.
const TOKEN_LENGTH_MIN: usize = 16;
/// More often would cost more than a hundredth of a processor with a thousand sandboxes.
const SAMPLE_MS_MIN: u64 = 100;
/// HMAC-SHA-256 is as strong as its key: RFC 7518 asks for 256 bits.
const JWT_SECRET_BYTES_MIN: usize = 32;
/// More tolerance than this would keep expired tokens alive.
const CLOCK_SKEW_S_MAX: u64 = 600;
/// More than a tebibyte is a mistyped unit.
const FREE_BYTES_MAX: u64 = 1 << 40;
/// Smaller than any interpreter needs to start.
const MEMORY_MB_FLOOR: u32 = 16;
/// Fewer than an interpreter, its threads and one child.
const PIDS_FLOOR: u32 = 8;
/// Standard streams, the channel, the interpreter's own files and a few of the user's.
const OPEN_FILES_FLOOR: u64 = 32;

/// The least that the HTTP parser can be held to.
const HEAD_BYTES_FLOOR: u64 = 8192;
/// Each connection may hold so much: a larger head is a mistyped unit.
const HEAD_BYTES_CEILING: u64 = 1024 * 1024;

/// Broken rules as (dotted key, what is wrong).
pub fn validate(config: &Config) -> Vec<(&'static str, String)> {
    let mut rules = Rules::default();
    rules.top(config);
    rules.limits(config);
    rules.http(config);
    rules.tls_and_secrets(config);
    rules.auth(config);
    rules.jwt(config);
    rules.sandbox(config);
    rules.pool(config);
    rules.queue_and_retention(config);
    rules.fleet(config);
    rules.broken
}

#[derive(Default)]
struct Rules {
    broken: Vec<(&'static str, String)>,
}

impl Rules {
    fn require(&mut self, key: &'static str, kept: bool, what: impl Into<String>) {
        if !kept {
            self.broken.push((key, what.into()));
        }
    }

    fn between(&mut self, key: &'static str, value: u64, least: u64, most: u64) {
        if value < least {
            self.require(key, false, format!("must be at least {least}, not {value}"));
        } else {
            self.require(key, value <= most, format!("must be at most {most}, not {value}"));
        }
    }

    fn at_least(&mut self, key: &'static str, value: u64, least: u64) {
        self.between(key, value, least, u64::MAX);
    }

    fn top(&mut self, config: &Config) {
        self.require("data_dir", !config.data_dir.as_os_str().is_empty(), "must name a directory");
        self.between("shutdown.drain_ms", config.shutdown.drain_ms, 0, DAY_MS);
        let sample_ms = config.metrics.sample_ms;
        self.require(
            "metrics.sample_ms",
            sample_ms == 0 || (SAMPLE_MS_MIN..=DAY_MS).contains(&sample_ms),
            format!("must be 0 or at least {SAMPLE_MS_MIN}, not {sample_ms}"),
        );
        if let Err(error) = crate::telemetry::filter(&config.log.level) {
            self.require("log.level", false, format!("is no log level or filter: {error}"));
        }
    }

    fn limits(&mut self, config: &Config) {
        let l = &config.limits;
        for (key, value) in [
            ("limits.zip_bytes", l.zip_bytes),
            ("limits.unpacked_bytes", l.unpacked_bytes),
            ("limits.zip_entries", l.zip_entries),
            ("limits.sync_payload_bytes", l.sync_payload_bytes),
            ("limits.async_payload_bytes", l.async_payload_bytes),
            ("limits.result_bytes", l.result_bytes),
            ("limits.output_bytes", l.output_bytes),
            ("limits.log_bytes", l.log_bytes),
            ("limits.tmp_mb", l.tmp_mb.into()),
            ("limits.functions_per_owner", l.functions_per_owner),
            ("limits.timeout_ms_min", l.timeout_ms_min),
        ] {
            self.at_least(key, value, 1);
        }
        self.at_least("limits.memory_mb_min", l.memory_mb_min.into(), MEMORY_MB_FLOOR.into());
        self.at_least("limits.memory_mb_max", l.memory_mb_max.into(), l.memory_mb_min.into());
        self.between(
            "limits.memory_mb_default",
            l.memory_mb_default.into(),
            l.memory_mb_min.into(),
            l.memory_mb_max.into(),
        );
        self.between("limits.timeout_ms_max", l.timeout_ms_max, l.timeout_ms_min, DAY_MS);
        self.between("limits.timeout_ms_default", l.timeout_ms_default, l.timeout_ms_min, l.timeout_ms_max);
        self.at_least("limits.pids", l.pids.into(), PIDS_FLOOR.into());
        let most = l.memory_mb_per_owner;
        self.require(
            "limits.memory_mb_per_owner",
            most == 0 || most >= u64::from(l.memory_mb_default),
            format!("must be 0 or hold one function of the default {} MB", l.memory_mb_default),
        );
    }

    fn http(&mut self, config: &Config) {
        let http = &config.http;
        self.at_least("http.connections_max", http.connections_max as u64, 1);
        self.between("http.header_timeout_ms", http.header_timeout_ms, 1, DAY_MS);
        self.between("http.body_timeout_ms", http.body_timeout_ms, 1, DAY_MS);
        self.between("http.write_timeout_ms", http.write_timeout_ms, 1, DAY_MS);
        self.between("http.head_bytes_max", http.head_bytes_max as u64, HEAD_BYTES_FLOOR, HEAD_BYTES_CEILING);
        for origin in &http.cors_origins {
            let kept = is_origin(origin);
            let what = "each must be an origin such as `https://app.example.org`: scheme, host and port if any, no path, no `*`";
            self.require("http.cors_origins", kept, format!("{what}; not `{origin}`"));
        }
        self.between("http.sync_wait_extra_ms", http.sync_wait_extra_ms, 0, DAY_MS);
        self.at_least("http.inflight_max", http.inflight_max as u64, 1);
        let token = http.metrics_token.len();
        self.require(
            "http.metrics_token",
            token == 0 || token >= TOKEN_LENGTH_MIN,
            format!("must be empty or at least {TOKEN_LENGTH_MIN} characters"),
        );
        self.at_least("rate_limit.rate", config.rate_limit.rate.into(), 1);
        self.at_least("rate_limit.burst", config.rate_limit.burst.into(), 1);
    }

    fn tls_and_secrets(&mut self, config: &Config) {
        let tls = &config.tls;
        let missing = "a certificate needs its key and a key its certificate: set both, or neither";
        self.require("tls.key", tls.certificate.is_empty() || !tls.key.is_empty(), missing);
        self.require("tls.certificate", tls.key.is_empty() || !tls.certificate.is_empty(), missing);
        self.between("tls.handshake_timeout_ms", tls.handshake_timeout_ms, 1, DAY_MS);
        self.at_least("tls.handshakes_max", tls.handshakes_max as u64, 1);
        let secrets = &config.secrets;
        let one = secrets.key_file.is_empty() || secrets.key.is_empty();
        self.require("secrets.key", one, "is set beside secrets.key_file: keep one of the two");
    }

    fn auth(&mut self, config: &Config) {
        for network in &config.http.trusted_proxies {
            let kept = network.parse::<IpNet>().is_ok() || network.parse::<std::net::IpAddr>().is_ok();
            self.require(
                "http.trusted_proxies",
                kept,
                format!("must be addresses or networks like 10.0.0.0/8, not `{network}`"),
            );
        }
        let audit = &config.audit;
        self.at_least("audit.file_bytes_max", audit.file_bytes_max, 4096);
        self.between("audit.files_max", audit.files_max as u64, 2, 1000);
        self.at_least("audit.refusals_max", audit.refusals_max.into(), 1);
    }

    fn jwt(&mut self, config: &Config) {
        let jwt = &config.auth.jwt;
        self.between("auth.jwt.clock_skew_s", jwt.clock_skew_s, 0, CLOCK_SKEW_S_MAX);
        self.between("auth.jwt.jwks_refresh_s", jwt.jwks_refresh_s, 10, DAY_MS / 1000);
        self.require("auth.jwt.owner_claim", !jwt.owner_claim.is_empty(), "must name a claim");
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        self.require("auth.jwt.owner_prefix", plain(&jwt.owner_prefix), "must be visible ASCII characters");
        let names = Scope::ALL.map(Scope::as_str).join(", ");
        for (key, scopes) in
            [("auth.jwt.scopes_default", &jwt.scopes_default), ("auth.jwt.scopes_allowed", &jwt.scopes_allowed)]
        {
            let kept = scopes.iter().all(|scope| Scope::parse(scope).is_some());
            self.require(key, kept, format!("must be some of {names}"));
        }
        let maps = |pair: &String| pair.rsplit_once('=').is_some_and(|(_, ours)| Scope::parse(ours).is_some());
        self.require(
            "auth.jwt.scope_map",
            jwt.scope_map.iter().all(maps),
            format!("must be theirs=ours, ours of {names}"),
        );
        if jwt.enabled {
            self.jwt_keys(jwt);
        }
    }

    fn jwt_keys(&mut self, jwt: &super::Jwt) {
        let is_set = |path: &Path| !path.as_os_str().is_empty();
        let (file, url) = (is_set(&jwt.jwks_file), !jwt.jwks_url.is_empty());
        let secrets = [!jwt.secret.is_empty(), is_set(&jwt.secret_file)];
        self.require("auth.jwt.secret", !(secrets[0] && secrets[1]), "is set beside auth.jwt.secret_file: keep one");
        self.require("auth.jwt.jwks_file", !(file && url), "is set beside auth.jwt.jwks_url: keep one");
        self.require(
            "auth.jwt.enabled",
            file || url || secrets.contains(&true),
            "needs a key to check with: secret_file, secret, jwks_file or jwks_url",
        );
        let length = jwt.secret.len();
        self.require(
            "auth.jwt.secret",
            length == 0 || length >= JWT_SECRET_BYTES_MIN,
            format!("must have at least {JWT_SECRET_BYTES_MIN} bytes"),
        );
        // Whoever publishes keys signs for others as well: a token must say that it is for this node.
        for (key, value) in [("auth.jwt.issuer", &jwt.issuer), ("auth.jwt.audience", &jwt.audience)] {
            self.require(key, !(file || url) || !value.is_empty(), "must be set where keys come from a key set");
        }
        if url {
            let kept = super::key_set_url(&jwt.jwks_url);
            self.require("auth.jwt.jwks_url", kept.is_ok(), kept.err().unwrap_or_default());
        }
    }

    fn sandbox(&mut self, config: &Config) {
        let sandbox = &config.sandbox;
        let prefix = &sandbox.cgroup_prefix;
        let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        self.require(
            "sandbox.cgroup_prefix",
            plain && (1..=32).contains(&prefix.len()),
            format!("must be 1 to 32 letters, digits, `_` or `-`, not `{prefix}`"),
        );
        self.at_least("sandbox.uid_first", sandbox.uid_first.into(), UID_FIRST_MIN.into());
        let end = u64::from(sandbox.uid_first) + u64::from(sandbox.uid_count);
        self.require("sandbox.uid_count", end <= UID_END_MAX, "the range must end below 4294967295");
        // A sandbox that is being ended still holds its ids, so a full pool needs some to spare: two of `uid_count` each.
        self.at_least("sandbox.uid_count", sandbox.uid_count.into(), 2 * config.pool.sandboxes_max as u64);
        self.between("sandbox.grace_ms", sandbox.grace_ms, 0, DAY_MS);
        self.between("sandbox.start_timeout_ms", sandbox.start_timeout_ms, 1, DAY_MS);
        self.between("sandbox.init_timeout_ms", sandbox.init_timeout_ms, 1, DAY_MS);
        self.between("sandbox.build_timeout_ms", sandbox.build_timeout_ms, 1, DAY_MS);
        self.at_least("sandbox.build_memory_mb", sandbox.build_memory_mb.into(), 64);
        self.at_least("sandbox.open_files_max", sandbox.open_files_max, OPEN_FILES_FLOOR);
        let runtimes = &config.runtimes;
        for (key, path) in [
            ("runtimes.python", &runtimes.python),
            ("runtimes.node", &runtimes.node),
            ("runtimes.go", &runtimes.go),
            ("runtimes.cxx", &runtimes.cxx),
        ] {
            let kept = path.is_empty() || path.starts_with('/');
            self.require(key, kept, format!("must be empty or an absolute path, not `{path}`"));
        }
    }

    fn pool(&mut self, config: &Config) {
        let pool = &config.pool;
        self.at_least("pool.sandboxes_max", pool.sandboxes_max as u64, 1);
        self.at_least("pool.starting_max", pool.starting_max as u64, 1);
        self.at_least("pool.per_version_max", pool.per_version_max as u64, 1);
        self.at_least("pool.waiters_max", pool.waiters_max as u64, 1);
        self.between("pool.keep_alive_s", pool.keep_alive_s, 1, KEEP_ALIVE_S_MAX);
        self.between("pool.keep_alive_max_s", pool.keep_alive_max_s, pool.keep_alive_s, KEEP_ALIVE_S_MAX);
        self.at_least("pool.code_cache_bytes", pool.code_cache_bytes, config.limits.unpacked_bytes);
        let budget = pool.memory_budget_mb;
        self.require(
            "pool.memory_budget_mb",
            budget == 0 || budget >= u64::from(config.limits.memory_mb_default),
            format!("must be 0 or hold one function of the default {} MB", config.limits.memory_mb_default),
        );
        for (key, count) in [
            ("pool.prewarmed_python", pool.prewarmed_python),
            ("pool.prewarmed_nodejs", pool.prewarmed_nodejs),
            ("pool.prewarmed_native", pool.prewarmed_native),
        ] {
            let kept = pool.sandboxes_max == 0 || count <= pool.sandboxes_max;
            self.require(key, kept, format!("must be at most pool.sandboxes_max, {}", pool.sandboxes_max));
        }
    }

    fn queue_and_retention(&mut self, config: &Config) {
        let queue = &config.queue;
        self.between("queue.visibility_s", queue.visibility_s, 1, VISIBILITY_S_MAX);
        self.between("queue.attempts_max", queue.attempts_max.into(), 1, 100);
        self.between("queue.backoff_max_ms", queue.backoff_max_ms, queue.backoff_ms, DAY_MS);
        self.at_least("queue.jobs_max", queue.jobs_max, 1);
        self.at_least("queue.dead_letters_max", queue.dead_letters_max, 1);
        let retention = &config.retention;
        self.at_least("retention.results_s", retention.results_s, 1);
        self.at_least("retention.logs_s", retention.logs_s, 1);
        self.at_least("retention.records_max", retention.records_max, 1);
        self.at_least("retention.sweep_s", retention.sweep_s, 1);
        self.between("disk.free_bytes_min", config.disk.free_bytes_min, 0, FREE_BYTES_MAX);
    }
}

/// Whether `text` is what browsers send as `Origin`: lower case, without a path.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    !rest.is_empty() && rest.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Backend, Role, Secrets};

    #[test]
    fn the_defaults_keep_every_rule() {
        assert_eq!(validate(&Config::default()), []);
    }

    /// Breaks one rule.
    type Break = fn(&mut Config);

    /// Each break, and the key that must be blamed for it.
    #[test]
    fn a_broken_rule_blames_its_key() {
        let cases: Vec<(&str, Break)> = vec![
            ("data_dir", |c| c.data_dir = "".into()),
            ("log.level", |c| c.log.level = "info,=".into()),
            ("metrics.sample_ms", |c| c.metrics.sample_ms = 1),
            ("shutdown.drain_ms", |c| c.shutdown.drain_ms = u64::MAX),
            ("limits.memory_mb_default", |c| c.limits.memory_mb_default = 63),
            ("limits.memory_mb_max", |c| c.limits.memory_mb_max = 1),
            ("limits.timeout_ms_default", |c| c.limits.timeout_ms_default = 1_000_000),
            ("limits.timeout_ms_max", |c| c.limits.timeout_ms_max = 99),
            ("limits.pids", |c| c.limits.pids = 1),
            ("limits.memory_mb_per_owner", |c| c.limits.memory_mb_per_owner = 1),
            ("http.metrics_token", |c| c.http.metrics_token = "short".into()),
            ("http.inflight_max", |c| c.http.inflight_max = 0),
            ("http.write_timeout_ms", |c| c.http.write_timeout_ms = 0),
            ("http.head_bytes_max", |c| c.http.head_bytes_max = 100),
            ("http.cors_origins", |c| c.http.cors_origins = vec!["*".into()]),
            ("http.cors_origins", |c| c.http.cors_origins = vec!["https://app.example.org/".into()]),
            ("http.cors_origins", |c| c.http.cors_origins = vec!["app.example.org".into()]),
            ("tls.key", |c| c.tls.certificate = "/cert.pem".into()),
            ("tls.certificate", |c| c.tls.key = "/key.pem".into()),
            ("tls.handshakes_max", |c| c.tls.handshakes_max = 0),
            ("secrets.key", |c| c.secrets = Secrets { key_file: "/keys".into(), key: "00".into() }),
            ("http.trusted_proxies", |c| c.http.trusted_proxies = vec!["proxy".into()]),
            ("audit.files_max", |c| c.audit.files_max = 1),
            ("auth.jwt.enabled", |c| c.auth.jwt.enabled = true),
            ("auth.jwt.secret", |c| {
                c.auth.jwt.enabled = true;
                c.auth.jwt.secret = "short".into();
            }),
            ("auth.jwt.audience", |c| {
                c.auth.jwt.enabled = true;
                c.auth.jwt.jwks_file = "/keys.json".into();
            }),
            ("auth.jwt.jwks_url", |c| {
                c.auth.jwt.enabled = true;
                c.auth.jwt.jwks_url = "http://example.org/keys".into();
            }),
            ("auth.jwt.scope_map", |c| c.auth.jwt.scope_map = vec!["a=god".into()]),
            ("auth.jwt.scopes_allowed", |c| c.auth.jwt.scopes_allowed = vec!["god".into()]),
            ("rate_limit.rate", |c| c.rate_limit.rate = 0),
            ("sandbox.cgroup_prefix", |c| c.sandbox.cgroup_prefix = "a/b".into()),
            ("sandbox.cgroup_prefix", |c| c.sandbox.cgroup_prefix = String::new()),
            ("sandbox.uid_first", |c| c.sandbox.uid_first = 1000),
            ("sandbox.uid_count", |c| c.sandbox.uid_first = u32::MAX),
            ("sandbox.uid_count", |c| c.sandbox.uid_count = 100),
            ("runtimes.node", |c| c.runtimes.node = "node".into()),
            ("pool.sandboxes_max", |c| c.pool.sandboxes_max = 0),
            ("pool.memory_budget_mb", |c| c.pool.memory_budget_mb = 1),
            ("pool.code_cache_bytes", |c| c.pool.code_cache_bytes = 1),
            ("pool.prewarmed_python", |c| c.pool.prewarmed_python = 1001),
            ("pool.keep_alive_s", |c| c.pool.keep_alive_s = 0),
            ("pool.keep_alive_max_s", |c| c.pool.keep_alive_max_s = 599),
            ("queue.visibility_s", |c| c.queue.visibility_s = 0),
            ("queue.attempts_max", |c| c.queue.attempts_max = 0),
            ("queue.backoff_max_ms", |c| c.queue.backoff_max_ms = 1),
            ("retention.sweep_s", |c| c.retention.sweep_s = 0),
            ("role", |c| c.role = crate::config::Role::Worker),
            ("aws.bucket", |c| c.backend = crate::config::Backend::Aws),
            ("aws.queue_url", |c| c.backend = crate::config::Backend::Aws),
            ("secrets.key_file", |c| c.backend = crate::config::Backend::Aws),
            ("fleet.secret", |c| {
                c.backend = crate::config::Backend::Aws;
                c.role = crate::config::Role::Worker;
            }),
            ("fleet.secret", |c| c.fleet.secret = "short".into()),
            ("fleet.heartbeat_ms", |c| c.fleet.heartbeat_ms = 60_000),
            ("fleet.ca_file", |c| c.fleet.ca_file = "/ca.pem".into()),
            ("fleet.listen", |c| c.fleet.listen = "0.0.0.0:7070".into()),
            ("fleet.listen", |c| {
                (c.backend, c.redis.url) = (crate::config::Backend::Aws, "redis://host".into());
                c.fleet.listen = "here".into();
            }),
            ("fleet.listen", |c| {
                c.backend = crate::config::Backend::Aws;
                c.fleet.listen = "0.0.0.0:7070".into();
            }),
            ("fleet.secret", |c| {
                (c.backend, c.redis.url) = (crate::config::Backend::Aws, "redis://host".into());
                c.fleet.listen = "0.0.0.0:7070".into();
            }),
            ("redis.url", |c| c.redis.url = "localhost:6379".into()),
            ("redis.url", |c| c.redis.url = "redis://:password@host".into()),
            ("aws.table_prefix", |c| c.aws.table_prefix = "a b".into()),
            ("aws.elastic_ip_allocation", |c| {
                c.backend = Backend::Aws;
                c.aws.elastic_ip_allocation = "203.0.113.9".into();
            }),
            ("aws.elastic_ip_allocation", |c| c.aws.elastic_ip_allocation = "eipalloc-0a".into()),
            ("aws.elastic_ip_allocation", |c| {
                (c.backend, c.role) = (Backend::Aws, Role::Worker);
                c.aws.elastic_ip_allocation = "eipalloc-0a".into();
            }),
            ("fleet.alone_after_s", |c| c.fleet.alone_after_s = 3),
            ("fleet.alone_after_s", |c| c.fleet.alone_after_s = 601),
            ("disk.free_bytes_min", |c| c.disk.free_bytes_min = 1 << 50),
        ];
        for (key, change) in cases {
            let mut config = Config::default();
            change(&mut config);
            let broken = validate(&config);
            assert!(broken.iter().any(|(blamed, _)| *blamed == key), "{key} is not blamed: {broken:?}");
        }
    }
}
