//! The rules that a configuration keeps beyond its types. All broken ones are told, each under the key to change.

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
/// Smaller than any interpreter needs to start.
const MEMORY_MB_FLOOR: u32 = 16;
/// Fewer than an interpreter, its threads and one child.
const PIDS_FLOOR: u32 = 8;
/// Standard streams, the channel, the interpreter's own files and a few of the user's.
const OPEN_FILES_FLOOR: u64 = 32;

/// Broken rules as (dotted key, what is wrong).
pub fn validate(config: &Config) -> Vec<(&'static str, String)> {
    let mut rules = Rules::default();
    rules.top(config);
    rules.limits(config);
    rules.http(config);
    rules.sandbox(config);
    rules.pool(config);
    rules.queue_and_retention(config);
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
    }

    fn http(&mut self, config: &Config) {
        let http = &config.http;
        self.at_least("http.connections_max", http.connections_max as u64, 1);
        self.between("http.header_timeout_ms", http.header_timeout_ms, 1, DAY_MS);
        self.between("http.body_timeout_ms", http.body_timeout_ms, 1, DAY_MS);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("shutdown.drain_ms", |c| c.shutdown.drain_ms = u64::MAX),
            ("limits.memory_mb_default", |c| c.limits.memory_mb_default = 63),
            ("limits.memory_mb_max", |c| c.limits.memory_mb_max = 1),
            ("limits.timeout_ms_default", |c| c.limits.timeout_ms_default = 1_000_000),
            ("limits.timeout_ms_max", |c| c.limits.timeout_ms_max = 99),
            ("limits.pids", |c| c.limits.pids = 1),
            ("http.metrics_token", |c| c.http.metrics_token = "short".into()),
            ("http.inflight_max", |c| c.http.inflight_max = 0),
            ("rate_limit.rate", |c| c.rate_limit.rate = 0),
            ("sandbox.cgroup_prefix", |c| c.sandbox.cgroup_prefix = "a/b".into()),
            ("sandbox.cgroup_prefix", |c| c.sandbox.cgroup_prefix = String::new()),
            ("sandbox.uid_first", |c| c.sandbox.uid_first = 1000),
            ("sandbox.uid_count", |c| c.sandbox.uid_first = u32::MAX),
            ("sandbox.uid_count", |c| c.sandbox.uid_count = 100),
            ("runtimes.node", |c| c.runtimes.node = "node".into()),
            ("pool.sandboxes_max", |c| c.pool.sandboxes_max = 0),
            ("pool.memory_budget_mb", |c| c.pool.memory_budget_mb = 1),
            ("pool.prewarmed_python", |c| c.pool.prewarmed_python = 1001),
            ("pool.keep_alive_s", |c| c.pool.keep_alive_s = 0),
            ("pool.keep_alive_max_s", |c| c.pool.keep_alive_max_s = 599),
            ("queue.visibility_s", |c| c.queue.visibility_s = 0),
            ("queue.attempts_max", |c| c.queue.attempts_max = 0),
            ("queue.backoff_max_ms", |c| c.queue.backoff_max_ms = 1),
            ("retention.sweep_s", |c| c.retention.sweep_s = 0),
        ];
        for (key, change) in cases {
            let mut config = Config::default();
            change(&mut config);
            let broken = validate(&config);
            assert!(broken.iter().any(|(blamed, _)| *blamed == key), "{key} is not blamed: {broken:?}");
        }
    }
}
