//! One running sandbox in the worker's hands: whether it is frozen, and what it was specialised with.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::domain::ids::SandboxId;
use crate::ports::sandbox::{Sandbox, SandboxError};

use super::advisors::Advisor;
use super::code_cache::CodeDir;
use super::metrics::FunctionMetrics;

/// The pool decides to freeze under its lock, but freezing happens outside of it. So the truth about whether a sandbox may
/// be frozen, and is, lies here: `hold` and `freeze` exclude each other, and whichever comes second sees the first.
pub(super) struct Handle {
    pub id: SandboxId,
    pub sandbox: Arc<dyn Sandbox>,
    /// Set once it has a version.
    pub special: OnceLock<Special>,
    rest: Mutex<Rest>,
}

/// What a specialised sandbox keeps.
pub(super) struct Special {
    /// Holds the code's directory, which the sandbox has mounted.
    pub _code: Arc<CodeDir>,
    pub init: Duration,
    pub metrics: Arc<FunctionMetrics>,
    /// Looks after its version's memory.
    pub advisor: Option<Arc<Advisor>>,
}

#[derive(Default)]
struct Rest {
    held: bool,
    frozen: bool,
}

impl Handle {
    pub fn new(id: SandboxId, sandbox: Arc<dyn Sandbox>) -> Self {
        Self { id, sandbox, special: OnceLock::new(), rest: Mutex::default() }
    }

    /// From now on it is not frozen until released; thaws it if it is.
    pub fn hold(&self) -> Result<(), SandboxError> {
        let mut rest = self.lock();
        rest.held = true;
        if rest.frozen {
            self.sandbox.thaw()?;
            rest.frozen = false;
        }
        Ok(())
    }

    pub fn release(&self) {
        self.lock().held = false;
    }

    /// Freezes it unless somebody held it meanwhile.
    pub fn freeze(&self) -> Result<(), SandboxError> {
        let mut rest = self.lock();
        if !rest.held && !rest.frozen {
            self.sandbox.freeze()?;
            rest.frozen = true;
        }
        Ok(())
    }

    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        // Two flags, each set in one step.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
