//! The bounds of everything a user may ask for. Each is a configuration key (`limits.*`) with the default given here.

use serde::{Deserialize, Serialize};

use super::function::Runtime;

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
    /// Most that `/tmp` and `/output` hold together; less where the function's memory has no room for it: [`Limits::scratch_mb`].
    pub tmp_mb: u32,
    /// Processes and threads together, of one sandbox.
    pub pids: u32,
    /// Names and values of a function's environment together.
    pub env_bytes: u64,
    pub description_bytes: u64,
    pub functions_per_owner: u64,
    /// Calls of one owner at once; a synchronous one beyond it is refused, an asynchronous one waits in the queue. 0: all but an eighth of
    /// what this machine runs at once, and further ones wait.
    pub concurrency_per_owner: usize,
    /// Memory that one owner's sandboxes may be promised together; 0: all but an eighth of the budget.
    pub memory_mb_per_owner: u64,
}

/// What a function's memory must hold beside its files: the loaded interpreter, the code, the kernel's part.
const RESERVE_MB: u32 = 32;
/// Node.js takes this much before it has loaded anything.
const RESERVE_NODEJS_MB: u32 = 64;
/// The reserve is at least one part in so many of the memory, and the files' part is never below half of that.
const RESERVE_PART: u32 = 4;

impl Limits {
    /// What `/tmp` and `/output` of such a function hold together. They are charged to its memory: what is left beside them is enough
    /// for a function that fills them to be told so, rather than killed.
    pub fn scratch_mb(&self, runtime: Runtime, memory_mb: u32) -> u32 {
        let least = if runtime == Runtime::Nodejs { RESERVE_NODEJS_MB } else { RESERVE_MB };
        let room = memory_mb.saturating_sub(least.max(memory_mb / RESERVE_PART));
        self.tmp_mb.min(room.max(memory_mb / (2 * RESERVE_PART)).max(1))
    }
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
            concurrency_per_owner: 0,
            memory_mb_per_owner: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_room_for_the_function() {
        let limits = Limits::default();
        for (runtime, memory_mb, scratch_mb) in [
            (Runtime::Python, 64, 32),
            (Runtime::Python, 128, 96),
            (Runtime::Python, 256, 192),
            (Runtime::Python, 10_240, 512),
            (Runtime::Nodejs, 64, 8),
            (Runtime::Nodejs, 128, 64),
            (Runtime::Nodejs, 1024, 512),
            (Runtime::Cpp, 16, 2),
        ] {
            assert_eq!(limits.scratch_mb(runtime, memory_mb), scratch_mb, "{runtime} with {memory_mb} MB");
        }
    }

    #[test]
    fn a_lower_limit_wins() {
        let limits = Limits { tmp_mb: 10, ..Limits::default() };
        assert_eq!(limits.scratch_mb(Runtime::Python, 1024), 10);
    }
}
