//! Which idle sandbox gives way when another version needs its room.

use std::time::Duration;

use crate::domain::ids::{SandboxId, VersionKey};

/// An idle sandbox that may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub sandbox: SandboxId,
    pub version: VersionKey,
    pub idle_since: Duration,
    pub memory_mb: u64,
}

/// The longest idle. `candidates` come in that order, and reading few of them is cheap.
pub fn choose(mut candidates: impl Iterator<Item = Candidate>) -> Option<SandboxId> {
    candidates.next().map(|candidate| candidate.sandbox)
}
