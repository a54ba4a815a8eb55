//! Whether Redis is there: once a second a message to ourselves, which must be taken by Redis and come back on the other connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::ports::bus::Reach;

use super::commands::Commands;
use super::metrics::Metrics;

const ASK_EVERY: Duration = Duration::from_secs(1);
/// So many messages in a row did not come back although Redis took them: the listening connection is dead without a word, and made anew.
const DEAF_AFTER: u32 = 3;

#[derive(Clone)]
pub(super) struct Watch {
    reach: Arc<watch::Sender<Reach>>,
    /// Number of the last message to ourselves that came back.
    heard: Arc<watch::Sender<u64>>,
    /// Something changed: ask now.
    changed: Arc<Notify>,
    metrics: Metrics,
}

impl Watch {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            reach: Arc::new(watch::Sender::new(Reach::default())),
            heard: Arc::new(watch::Sender::new(0)),
            changed: Arc::default(),
            metrics,
        }
    }

    pub fn now(&self) -> Reach {
        *self.reach.borrow()
    }

    /// News arrive from now on, as far as can be told.
    pub fn subscribed(&self) {
        self.changed.notify_one();
    }

    /// A message to ourselves came back.
    pub fn heard(&self, message: &[u8]) {
        if let Ok(number) = message.try_into().map(u64::from_be_bytes) {
            self.heard.send_replace(number);
        }
    }

    /// Asks for as long as it is polled.
    pub async fn probe(self, channel: String, commands: Commands, listener: Client, within: Duration) {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deaf = 0;
        for number in 1u64.. {
            let begun = Instant::now();
            let answers = commands.publish(&channel, Bytes::copy_from_slice(&number.to_be_bytes())).await.is_ok();
            let latency = begun.elapsed();
            let hears = answers && {
                let mut heard = self.heard.subscribe();
                timeout(within, heard.wait_for(|heard| *heard == number)).await.is_ok()
            };
            self.note(answers.then_some(latency), hears);
            deaf = if hears || !answers { 0 } else { deaf + 1 };
            if deaf >= DEAF_AFTER {
                deaf = 0;
                tracing::warn!("Redis takes commands and no news arrive; connecting the listener again");
                // Bounded: it may be what does not answer.
                let _ = timeout(within, listener.force_reconnection()).await;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn note(&self, latency: Option<Duration>, hears: bool) {
        let before = self.now();
        let answers = latency.is_some();
        let now = Reach { is_up: answers && hears, latency: latency.or(before.latency) };
        self.metrics.up.set(i64::from(now.is_up));
        if before.is_up != now.is_up {
            match now.is_up {
                true => tracing::info!("Redis is up"),
                false => tracing::warn!(answers, hears, "Redis is down: going on without it"),
            }
        }
        self.reach.send_replace(now);
    }
}
