//! The bounds of everything a user may ask for. Each is a configuration key (`limits.*`) with the default given here.

use serde::{Deserialize, Serialize};

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;

/// See `docs/limits.md` for the table users read. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// An uploaded archive, as sent.
    pub zip_bytes: u64,
    /// The same, unpacked.
    pub unpacked_bytes: u64,
    pub zip_entries: u64,
    /// Input of a synchronous call.
    pub sync_payload_bytes: u64,
    /// Input of an asynchronous call.
    pub async_payload_bytes: u64,
    /// The handler's value as JSON.
    pub result_bytes: u64,
    /// What a record keeps of stdout and of stderr, each; beyond it the text is cut and marked.
    pub output_bytes: u64,
    /// What is kept of stdout and stderr as a log artifact; beyond it the text is dropped.
    pub log_bytes: u64,
    /// All output files of one invocation together.
    pub output_files_bytes: u64,
    pub output_files: u64,
    pub memory_mb_min: u32,
    pub memory_mb_max: u32,
    pub memory_mb_default: u32,
    pub timeout_ms_min: u64,
    pub timeout_ms_max: u64,
    pub timeout_ms_default: u64,
    /// Size of `/tmp`, and of `/output`.
    pub tmp_mb: u32,
    /// Processes and threads together, of one sandbox.
    pub pids: u32,
    /// Names and values of a function's environment together.
    pub env_bytes: u64,
    pub description_bytes: u64,
    pub functions_per_owner: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            zip_bytes: 50 * MIB,
            unpacked_bytes: 250 * MIB,
            zip_entries: 10_000,
            sync_payload_bytes: 6 * MIB,
            async_payload_bytes: MIB,
            result_bytes: 6 * MIB,
            output_bytes: MIB,
            log_bytes: 16 * MIB,
            output_files_bytes: 64 * MIB,
            output_files: 100,
            memory_mb_min: 64,
            memory_mb_max: 10_240,
            memory_mb_default: 128,
            timeout_ms_min: 100,
            timeout_ms_max: 900_000,
            timeout_ms_default: 30_000,
            tmp_mb: 512,
            pids: 128,
            env_bytes: 4 * KIB,
            description_bytes: 256,
            functions_per_owner: 10_000,
        }
    }
}
