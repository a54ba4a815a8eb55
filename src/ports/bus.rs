//! The bus: news for whoever listens now. It promises nothing: what matters is stored before it is told, and a listener re-reads.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::{FunctionId, InvocationId, KeyId};

/// What is told. Small: the receiver reads the store for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A final record is stored.
    Finished(InvocationId),
    /// A new version is current, or the function is gone: cached copies are stale.
    FunctionChanged(FunctionId),
    KeyRevoked(KeyId),
    /// Whoever runs it should stop.
    Cancel(InvocationId),
}

/// How the way between nodes is, as of the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// News go out and arrive.
    pub is_up: bool,
    /// To where they are passed on and back, the last time there was an answer.
    pub latency: Option<Duration>,
}

/// Hears everything from its creation on, unless it is slow.
#[async_trait]
pub trait Subscription: Send {
    /// `None`: news were missed, re-read whatever you wait for. Pends for ever when nothing happens.
    async fn next(&mut self) -> Option<News>;
}

pub trait Bus: Send + Sync + 'static {
    /// Never waits and never fails.
    fn publish(&self, news: News);

    /// Whether news can be lost without a `None` at the listener, as over a network: who keeps copies then reads them again now and then.
    fn loses_silently(&self) -> bool {
        true
    }

    /// `None`: there is no way, news stay in this process.
    fn reach(&self) -> Option<Reach> {
        None
    }

    fn subscribe(&self) -> Box<dyn Subscription>;
}
