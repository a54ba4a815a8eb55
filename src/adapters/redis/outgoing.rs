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

/// Where they go.
#[derive(Clone)]
pub(super) struct Channels {
    /// What concerns every node.
    pub news: Arc<str>,
    /// That calls ended: most of all news, and only those want them who wait for calls.
    pub ended: Arc<str>,
}

/// Takes them out.
pub(super) struct Sender {
    queue: mpsc::Receiver<News>,
    has_lost: Arc<AtomicBool>,
    origin: Uuid,
    channels: Channels,
    commands: Commands,
    metrics: Metrics,
}

pub(super) fn queue(origin: Uuid, channels: Channels, commands: Commands, metrics: Metrics) -> (Outgoing, Sender) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let has_lost = Arc::new(AtomicBool::new(false));
    let outgoing = Outgoing { queue: sender, has_lost: has_lost.clone(), metrics: metrics.clone() };
    (outgoing, Sender { queue: receiver, has_lost, origin, channels, commands, metrics })
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
            let mut goes = true;
            if self.has_lost.swap(false, Ordering::Relaxed) {
                // Which kind they were is not known any more.
                goes =
                    self.send(&self.channels.ended, true, &[]).await && self.send(&self.channels.news, true, &[]).await;
            }
            // In order over both: whoever listens to both hears them as they were put.
            for run in news.chunk_by(|one, next| is_end(one) == is_end(next)) {
                let channel = if is_end(&run[0]) { &self.channels.ended } else { &self.channels.news };
                // One that failed is enough to wait for.
                goes = goes && self.send(channel, false, run).await;
                if !goes {
                    self.metrics.news_lost.inc_by(run.len() as u64);
                }
            }
            if !goes {
                self.has_lost.store(true, Ordering::Relaxed);
            }
        }
    }

    /// `false`: Redis did not take it.
    async fn send(&self, channel: &str, has_lost: bool, news: &[News]) -> bool {
        let sent = self.commands.publish(channel, encode(self.origin, has_lost, news)).await.is_ok();
        if sent {
            self.metrics.news_sent.inc_by(news.len() as u64);
        }
        sent
    }
}

fn is_end(news: &News) -> bool {
    matches!(news, News::Finished(_))
}
