//! The instance a node runs on, and what its owner says is going to become of it.

use async_trait::async_trait;

use super::Unavailable;

/// What is said of an instance that is going to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is taken back within two minutes.
    Reclaimed,
    /// It is likelier than others to be taken back soon: finish, take nothing new.
    Rebalance,
    /// Its group ends it, and waits until it says that it is done.
    Terminating,
}

#[async_trait]
pub trait Instance: Send + Sync + 'static {
    /// The gravest notice there is now.
    async fn notice(&self) -> Result<Option<Notice>, Unavailable>;

    /// What was announced must wait on: this node still has something to do. To be said again and again.
    async fn still_draining(&self) -> Result<(), Unavailable>;

    /// What was announced may happen now: this node has nothing left to do.
    async fn done(&self) -> Result<(), Unavailable>;
}
