//! The environment of a function: what Lambda sets, what the platform adds, and the user's own, which can't override either.

use std::collections::BTreeMap;

use crate::domain::function::Version;

/// Inside every sandbox.
pub const TASK_ROOT: &str = "/var/task";
pub const OUTPUT_DIR: &str = "/output";
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What a generic runtime starts with, as `NAME=value`.
pub fn generic() -> Vec<String> {
    let common = [
        ("PATH", PATH),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TZ", ":UTC"),
        ("OUTPUT_DIR", OUTPUT_DIR),
    ];
    common.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What a version's code sees.
pub fn of(version: &Version) -> BTreeMap<String, String> {
    let mut env = version.env.clone().into_values();
    let name = version.function_name.as_ref();
    let number = version.number.to_string();
    let memory = version.memory_mb.to_string();
    let function = version.function_id.to_string();
    for (key, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", name),
        ("AWS_LAMBDA_FUNCTION_VERSION", number.as_str()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory.as_str()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", &format!("{number}/{function}")),
        ("AWS_EXECUTION_ENV", &format!("faasd_{}", version.runtime)),
        ("AWS_REGION", "local"),
        ("AWS_DEFAULT_REGION", "local"),
        ("LAMBDA_TASK_ROOT", TASK_ROOT),
        ("LAMBDA_RUNTIME_DIR", "/opt/faasd"),
        ("_HANDLER", version.handler.as_deref().unwrap_or_default()),
        ("FUNCTION_ID", &function),
        ("MEMORY_MB", &memory),
        ("OUTPUT_DIR", OUTPUT_DIR),
    ] {
        env.insert(key.to_owned(), value.to_owned());
    }
    for (key, value) in [("PATH", PATH), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8"), ("TZ", ":UTC")] {
        env.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    env
}
