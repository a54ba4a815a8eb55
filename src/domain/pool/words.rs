//! What the pool is told and what it answers.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{SandboxId, VersionKey};
use crate::domain::outcome::StartType;
use crate::domain::policy::evict::Eviction;
use crate::domain::policy::keep_alive::KeepAlive;

use super::owners::Share;

/// What a generic sandbox is counted with: an interpreter that has loaded nothing.
pub const GENERIC_MEMORY_MB: u64 = 32;

/// One caller waiting for a sandbox; the caller's own counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// The bounds of a pool. All are at least 1 but `prewarmed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub sandboxes_max: usize,
    /// Calls running at once.
    pub concurrency_max: usize,
    /// Processors of this machine: more sandboxes than keep them busy make nobody faster.
    pub cpus: usize,
    pub starting_max: usize,
    pub per_version_max: usize,
    pub waiters_max: usize,
    /// Whoever is not patient and would wait for longer in a line that lasts is refused at once.
    pub queue_wait_max: Duration,
    pub memory_budget_mb: u64,
    /// Of all that, what one owner may have.
    pub share: Share,
    /// Generic sandboxes kept ready, by `Runtime as usize`; 0 where this machine can't run it.
    pub prewarmed: [usize; Runtime::ALL.len()],
    pub freeze_after: Duration,
    pub keep_alive: KeepAlive,
    pub eviction: Eviction,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Answered by `Assign` or `Refuse`, now or later.
    Checkout {
        waiter: WaiterId,
        version: &'a Arc<Version>,
        /// It waits however long the line is.
        patient: bool,
    },
    /// The caller gave up; nothing answers it. Unknown waiters are ignored: they were answered meanwhile.
    Cancel {
        waiter: WaiterId,
    },
    /// A `Start` succeeded.
    Started {
        sandbox: SandboxId,
    },
    /// A `Start` failed and left nothing.
    StartFailed {
        sandbox: SandboxId,
    },
    Specialised {
        sandbox: SandboxId,
    },
    SpecialiseFailed {
        sandbox: SandboxId,
    },
    /// The call on it is over.
    Checkin {
        sandbox: SandboxId,
        reusable: bool,
        /// Processor time of the call; `None`: there was no call on it after all.
        cpu: Option<Duration>,
    },
    /// Its first process ended without being told to.
    Died {
        sandbox: SandboxId,
    },
    /// What `End` asked for is done: nothing is left of it.
    Ended {
        sandbox: SandboxId,
    },
    /// No new calls are meant for this version. Who waits already is still served.
    Retire {
        version: VersionKey,
    },
    /// So much of the budget is needed elsewhere from now on. Idle sandboxes give way; what runs already stays.
    Lend {
        memory_mb: u64,
    },
    /// It is needed there no longer.
    Return {
        memory_mb: u64,
    },
    /// How much the machine's processors were idle of late, of a thousand.
    Processors {
        idle: u16,
    },
    /// Refuse new callers, or take them again. What is idle stays.
    Cordon {
        on: bool,
    },
    /// Refuse new callers, keep nothing idle; who waits already is still served.
    Drain,
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Assign {
        waiter: WaiterId,
        sandbox: SandboxId,
        start_type: StartType,
        was_frozen: bool,
    },
    Refuse {
        waiter: WaiterId,
        reason: Refusal,
    },
    /// Report `Started` or `StartFailed`.
    Start {
        sandbox: SandboxId,
        runtime: Runtime,
    },
    /// Report `Specialised` or `SpecialiseFailed`.
    Specialise {
        sandbox: SandboxId,
        version: Arc<Version>,
    },
    /// Only while it is idle: a later `Assign` or `Specialise` of the same sandbox goes before it.
    Freeze {
        sandbox: SandboxId,
    },
    /// Report `Ended`.
    End {
        sandbox: SandboxId,
        reason: EndReason,
    },
}

/// Why a caller gets no sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait already as may.
    WaitersFull,
    /// The line has lasted, and is longer than anybody is to wait in.
    Overloaded,
    /// As many calls of this owner run or wait already as may.
    OwnerFull,
    /// The version is promised more memory than this machine has to give.
    TooLarge,
    Draining,
    /// The creation it counted on failed; the event that said so knows why.
    CreationFailed,
}

/// Why a sandbox is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Idle for too long.
    KeepAlive,
    /// Another version needed the room.
    Evicted,
    /// Its version has a successor or is deleted.
    Retired,
    Draining,
    /// The call on it left it unfit for another.
    NotReusable,
    SpecialiseFailed,
    /// It ended by itself.
    Died,
    /// Started, and nobody needs it any more.
    Surplus,
}

impl EndReason {
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::KeepAlive => "keep_alive",
            EndReason::Evicted => "evicted",
            EndReason::Retired => "retired",
            EndReason::Draining => "draining",
            EndReason::NotReusable => "not_reusable",
            EndReason::SpecialiseFailed => "specialise_failed",
            EndReason::Died => "died",
            EndReason::Surplus => "surplus",
        }
    }
}

/// Sandboxes of one runtime, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub warm: u32,
    pub prewarmed: u32,
    pub busy: u32,
    /// Starting or being specialised.
    pub starting: u32,
    pub ending: u32,
    pub frozen: u32,
}
