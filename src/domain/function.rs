//! Functions and their immutable versions.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::env::Env;
use super::ids::{Digest, FunctionId, Owner, VersionKey};
use super::time::Timestamp;

/// The language contract a version's code is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    Python,
    Nodejs,
    /// An executable `bootstrap` that speaks the Lambda Runtime API.
    Provided,
    Go,
    Cpp,
}

impl Runtime {
    pub const ALL: [Runtime; 5] = [Runtime::Python, Runtime::Nodejs, Runtime::Provided, Runtime::Go, Runtime::Cpp];

    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Python => "python",
            Runtime::Nodejs => "nodejs",
            Runtime::Provided => "provided",
            Runtime::Go => "go",
            Runtime::Cpp => "cpp",
        }
    }

    /// Reads a name or an alias (`python3.12`, `nodejs20.x`, `node`, `provided.al2023`, `go1.x`, `c++`), in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let is_version = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '.' || c == 'x');
        if let Some(rest) = text.strip_prefix("python") {
            return is_version(rest).then_some(Runtime::Python);
        }
        if let Some(rest) = text.strip_prefix("nodejs").or_else(|| text.strip_prefix("node")) {
            return is_version(rest).then_some(Runtime::Nodejs);
        }
        match text.as_str() {
            "provided" | "provided.al2" | "provided.al2023" => Some(Runtime::Provided),
            "go" | "golang" | "go1.x" => Some(Runtime::Go),
            "cpp" | "c++" | "c++17" | "c++20" => Some(Runtime::Cpp),
            _ => None,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A function: a name that stays while versions follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    pub id: FunctionId,
    pub owner: Owner,
    pub name: Arc<str>,
    /// The version that new calls run.
    pub current: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a function does and with what, fixed for ever once published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    pub function_id: FunctionId,
    /// Counted from 1.
    pub number: u32,
    pub owner: Owner,
    pub function_name: Arc<str>,
    pub description: String,
    pub runtime: Runtime,
    /// As given: `file.function`; absent means the runtime's own convention.
    pub handler: Option<String>,
    pub memory_mb: u32,
    /// Whether a version with the memory that its calls ask for may be published without its owner.
    #[serde(default)]
    pub auto_memory: bool,
    pub timeout_ms: u64,
    /// May hold secrets: shown by name only, and no part of a version's JSON, so that no answer can have it by mistake.
    #[serde(skip)]
    pub env: Env,
    /// The archive whose contents stand at `/var/task`.
    pub code: Digest,
    /// Size of that archive.
    pub code_bytes: u64,
    pub created_at: Timestamp,
}

impl Version {
    pub fn key(&self) -> VersionKey {
        VersionKey { function: self.function_id, number: self.number }
    }
}

/// Whether `name` may name a function: `[A-Za-z0-9_-]{1,64}` and not shaped like an id.
pub fn name_is_valid(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && uuid::Uuid::try_parse(name).is_err()
}

/// Environment names that the platform sets itself: a user's value for one is refused at deploy.
pub fn env_name_is_reserved(name: &str) -> bool {
    const EXACT: [&str; 18] = [
        "_HANDLER",
        "AWS_EXECUTION_ENV",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
        "JOB_ID",
        "FUNCTION_ID",
        "MEMORY_MB",
        "OUTPUT_DIR",
        "PAYLOAD",
        "_X_AMZN_TRACE_ID",
        "LD_PRELOAD",
        "LD_AUDIT",
    ];
    EXACT.contains(&name) || name.starts_with("AWS_LAMBDA_") || name.starts_with("FAASD_")
}

/// Whether `name` can be an environment variable at all: a letter first, then letters, digits, `_`.
pub fn env_name_is_valid(name: &str) -> bool {
    name.len() <= 256
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_name_their_runtime() {
        for (alias, runtime) in [
            ("python", Runtime::Python),
            ("python3.12", Runtime::Python),
            ("Python3.x", Runtime::Python),
            ("nodejs20.x", Runtime::Nodejs),
            ("node", Runtime::Nodejs),
            ("provided.al2023", Runtime::Provided),
            ("c++", Runtime::Cpp),
            ("go1.x", Runtime::Go),
        ] {
            assert_eq!(Runtime::parse(alias), Some(runtime), "{alias}");
        }
        for unknown in ["", "ruby", "pythonista", "node-red", "provided.al2024"] {
            assert_eq!(Runtime::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn names_are_plain_and_never_ids() {
        assert!(name_is_valid("hello_World-2"));
        for bad in ["", "a b", "a/b", "ünï", "00000000-0000-0000-0000-000000000000", &"x".repeat(65)] {
            assert!(!name_is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn reserved_environment_is_known() {
        assert!(env_name_is_reserved("AWS_LAMBDA_FUNCTION_NAME"));
        assert!(env_name_is_reserved("JOB_ID"));
        assert!(!env_name_is_reserved("TABLE_NAME"));
        assert!(!env_name_is_valid("1A"));
        assert!(!env_name_is_valid("A=B"));
    }
}
