//! Memory of the pool's budget that something beside the pool uses for a while: a compilation.

use std::sync::Arc;

use crate::domain::pool::Event;

use super::sandboxes::Sandboxes;

impl Sandboxes {
    /// Takes memory out of the pool's budget for as long as the value lives.
    pub fn lend(self: &Arc<Self>, memory_mb: u64) -> Lent {
        self.apply(Event::Lend { memory_mb });
        Lent { sandboxes: self.clone(), memory_mb }
    }
}

/// Memory that something beside the pool uses.
pub(super) struct Lent {
    sandboxes: Arc<Sandboxes>,
    memory_mb: u64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.sandboxes.apply(Event::Return { memory_mb: self.memory_mb });
    }
}
