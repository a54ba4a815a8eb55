//! What a node that shares its store must be told, and what one that does not can't be.

use crate::config::{Backend, Config, Role};

use super::Rules;

/// A secret that is easy to guess is as good as none.
const SECRET_LENGTH_MIN: usize = 32;
/// More often would cost the fleet's Redis more than the news are worth.
const HEARTBEAT_MS_MIN: u64 = 100;
/// Three must fit before a worker counts as dead.
const HEARTBEAT_MS_MAX: u64 = 10_000;
/// A worker that nobody has heard of for so long is forgotten anyway.
const ALONE_S_MAX: u64 = 600;
/// A message that waits longer for company than this keeps its caller waiting.
const LINGER_MS_MAX: u64 = 1000;
const TIMEOUT_MS_MAX: u64 = 60_000;

const REDIS_SCHEMES: [&str; 6] =
    ["redis://", "rediss://", "redis-cluster://", "rediss-cluster://", "redis-sentinel://", "rediss-sentinel://"];

impl Rules {
    pub(super) fn fleet(&mut self, config: &Config) {
        let (aws, redis, fleet) = (&config.aws, &config.redis, &config.fleet);
        let shared = config.backend == Backend::Aws;
        self.require(
            "role",
            shared || config.role == Role::Both,
            "must be \"both\" with backend = \"embedded\": nobody else can use what this process keeps; set backend = \"aws\"",
        );
        if shared {
            self.require("backend", cfg!(feature = "aws"), "this build has no AWS: build it with the feature aws");
            self.require("aws.bucket", !aws.bucket.is_empty(), "must name an S3 bucket with backend = \"aws\"");
            let url = aws.queue_url.starts_with("http://") || aws.queue_url.starts_with("https://");
            self.require("aws.queue_url", url, "must be the URL of an SQS queue with backend = \"aws\"");
            self.require(
                "secrets.key_file",
                !config.secrets.key_file.is_empty() || !config.secrets.key.is_empty(),
                "or secrets.key must be set with backend = \"aws\": all nodes open what each of them sealed",
            );
            self.require(
                "fleet.secret",
                config.role == Role::Both || !fleet.secret.is_empty() || !fleet.secret_file.is_empty(),
                "or fleet.secret_file must be set for a node of a fleet: what all its nodes know and nobody else does",
            );
        }
        let is_member = shared && config.role == Role::Both;
        self.require(
            "fleet.listen",
            fleet.listen.is_empty() || is_member,
            "is for role = \"both\" with backend = \"aws\": a worker listens at `listen`, and nobody calls other nodes",
        );
        self.require(
            "fleet.listen",
            fleet.listen.is_empty() || fleet.listen.parse::<std::net::SocketAddr>().is_ok(),
            "must be an address and a port",
        );
        self.require(
            "fleet.listen",
            fleet.listen.is_empty() || !redis.url.is_empty(),
            "needs redis.url: controllers hear of a worker through it",
        );
        self.require(
            "fleet.secret",
            fleet.listen.is_empty() || !fleet.secret.is_empty() || !fleet.secret_file.is_empty(),
            "or fleet.secret_file must be set with fleet.listen: whoever calls must prove that it may",
        );
        self.require(
            "aws.table_prefix",
            !aws.table_prefix.is_empty()
                && aws.table_prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)),
            "must be letters, digits, `_`, `.` or `-`",
        );
        let allocation = &aws.elastic_ip_allocation;
        let named = allocation.strip_prefix("eipalloc-").is_some_and(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
        self.require(
            "aws.elastic_ip_allocation",
            allocation.is_empty() || named,
            format!("must be an allocation like eipalloc-0123456789abcdef0, not `{allocation}`"),
        );
        self.require(
            "aws.elastic_ip_allocation",
            allocation.is_empty() || shared,
            "needs backend = \"aws\": a single node has no other that could take its address over",
        );
        self.require(
            "aws.elastic_ip_allocation",
            allocation.is_empty() || config.role != Role::Worker,
            "must be empty on a worker: callers come to controllers",
        );
        self.between("aws.linger_ms", aws.linger_ms, 0, LINGER_MS_MAX);
        self.between("aws.operation_timeout_ms", aws.operation_timeout_ms, 100, TIMEOUT_MS_MAX);
        self.require(
            "redis.url",
            redis.url.is_empty() || REDIS_SCHEMES.iter().any(|scheme| redis.url.starts_with(scheme)),
            "must begin with redis://, rediss://, redis-cluster:// or redis-sentinel://",
        );
        // The address is shown; a password in it would be too.
        self.require(
            "redis.url",
            !redis.url.contains('@'),
            "must hold no password: set redis.username and redis.password",
        );
        self.require(
            "redis.url",
            redis.url.is_empty() || cfg!(feature = "redis"),
            "this build has no Redis: build it with the feature redis",
        );
        self.require(
            "redis.url",
            !redis.url.to_ascii_lowercase().contains("password="),
            "must hold no password of sentinels either: they are asked without one",
        );
        // Keys and channels have it in braces, which say what a cluster keeps on one node.
        self.require(
            "redis.key_prefix",
            !redis.key_prefix.is_empty()
                && redis.key_prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b)),
            "must be letters, digits, `_`, `.`, `:` or `-`",
        );
        self.between("redis.command_timeout_ms", redis.command_timeout_ms, 10, TIMEOUT_MS_MAX);
        let secret = fleet.secret.expose().len();
        self.require(
            "fleet.secret",
            secret == 0 || secret >= SECRET_LENGTH_MIN,
            format!("must have at least {SECRET_LENGTH_MIN} characters"),
        );
        self.require(
            "fleet.secret",
            secret == 0 || fleet.secret_file.is_empty(),
            "and fleet.secret_file can't both be set",
        );
        self.between("fleet.heartbeat_ms", fleet.heartbeat_ms, HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX);
        let alone_s = fleet.alone_after_s;
        self.require(
            "fleet.alone_after_s",
            alone_s == 0 || (alone_s <= ALONE_S_MAX && alone_s * 1000 >= 2 * fleet.heartbeat_ms),
            format!("must be 0, or at least two of fleet.heartbeat_ms and at most {ALONE_S_MAX}, not {alone_s}"),
        );
        self.require(
            "fleet.ca_file",
            fleet.ca_file.is_empty() || !config.tls.certificate.is_empty(),
            "needs tls.certificate and tls.key: a node shows its own certificate to the others",
        );
    }
}
