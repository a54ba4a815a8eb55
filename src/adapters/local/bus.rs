//! The bus of one process: a bounded ring that every listener reads at its own pace.

use async_trait::async_trait;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::ports::bus::{Bus, News, Subscription};

/// News that a slow listener may be behind by, before it misses some.
const NEWS_KEPT: usize = 2048;

pub struct LocalBus {
    sender: broadcast::Sender<News>,
}

impl LocalBus {
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(NEWS_KEPT) }
    }
}

impl Bus for LocalBus {
    fn publish(&self, news: News) {
        // The only failure is that nobody listens.
        let _ = self.sender.send(news);
    }

    fn loses_silently(&self) -> bool {
        false
    }

    fn subscribe(&self) -> Box<dyn Subscription> {
        Box::new(Listener { receiver: self.sender.subscribe() })
    }
}

struct Listener {
    receiver: broadcast::Receiver<News>,
}

#[async_trait]
impl Subscription for Listener {
    async fn next(&mut self) -> Option<News> {
        match self.receiver.recv().await {
            Ok(news) => Some(news),
            Err(RecvError::Lagged(_)) => None,
            // The bus is gone: nothing will ever happen.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
