//! The address at which callers find the fleet: one for all its controllers, of which one has it.

use async_trait::async_trait;

use super::Unavailable;

/// Where calls to the address arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Here,
    /// At another node.
    Elsewhere,
    /// Nowhere: whoever had it is gone.
    Nowhere,
}

#[async_trait]
pub trait Address: Send + Sync + 'static {
    async fn place(&self) -> Result<Place, Unavailable>;

    /// Lets calls arrive here. Whoever takes it last has it, so a lease must be held first. `from` is where it was seen: from nowhere it is
    /// taken only if it is nowhere still.
    async fn take(&self, from: Place) -> Result<(), Unavailable>;
}

/// Whether this node can do what callers who come to the address want.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    async fn is_ready(&self) -> bool;
}
