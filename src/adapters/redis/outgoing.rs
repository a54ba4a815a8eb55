//! News on their way to the other nodes: a bounded queue, and one sender that takes as many at once as have come together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::ports::bus::News;

use super::commands::Commands;
use super::metrics::Metrics;
use super::wire::{NEWS_MAX, encode};

/// News that wait to be sent; while Redis answers it is a few. Each has 20 bytes.
const WAITING_MAX: usize = 16_384;
/// How often the others are told that news of ours were lost, until they can be.
const TELL_LOST_EVERY: Duration = Duration::from_millis(500);

/// Where news are put. Never waits.
pub(super) struct Outgoing {
    queue: mpsc::Sender<News>,
    has_lost: Arc<AtomicBool>,
    metrics: Metrics,
}

/// Takes them out.
pub(super) struct Sender {
    queue: mpsc::Receiver<News>,
    has_lost: Arc<AtomicBool>,
    origin: Uuid,
    channel: Arc<str>,
    commands: Commands,
    metrics: Metrics,
}

pub(super) fn queue(origin: Uuid, channel: Arc<str>, commands: Commands, metrics: Metrics) -> (Outgoing, Sender) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let has_lost = Arc::new(AtomicBool::new(false));
    let outgoing = Outgoing { queue: sender, has_lost: has_lost.clone(), metrics: metrics.clone() };
    (outgoing, Sender { queue: receiver, has_lost, origin, channel, commands, metrics })
}

impl Outgoing {
    pub fn put(&self, news: News) {
        if self.queue.try_send(news).is_err() {
            self.has_lost.store(true, Ordering::Relaxed);
            self.metrics.news_lost.inc();
        }
    }
}

impl Sender {
    /// Sends until nobody can put news any more. What can't be sent is lost, and everybody told so as soon as that can be.
    pub async fn run(mut self) {
        let mut news = Vec::with_capacity(NEWS_MAX);
        loop {
            news.clear();
            let has_news = self.queue.recv_many(&mut news, NEWS_MAX);
            if self.has_lost.load(Ordering::Relaxed) {
                // Not at once again: Redis is down.
                if let Ok(0) = tokio::time::timeout(TELL_LOST_EVERY, has_news).await {
                    return;
                }
            } else if has_news.await == 0 {
                return;
            }
            let has_lost = self.has_lost.swap(false, Ordering::Relaxed);
            match self.commands.publish(&self.channel, encode(self.origin, has_lost, &news)).await {
                Ok(()) => self.metrics.news_sent.inc_by(news.len() as u64),
                Err(_) => {
                    self.has_lost.store(true, Ordering::Relaxed);
                    self.metrics.news_lost.inc_by(news.len() as u64);
                }
            }
        }
    }
}
