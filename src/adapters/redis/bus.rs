//! The bus over Redis: news reach listeners of this process at once, Redis or not, and those of other nodes through two channels: what ended
//! has one of its own, which workers don't listen to.
//!
//! Redis keeps no messages. So whoever listens here is told `None` after each subscription, the first too, after falling behind, and when another node says
//! that it could not send. What Redis drops on its way to us without a word, nobody can tell: whoever keeps copies reads again now and then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::Message;
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

use crate::ports::bus::{Bus, News, Reach, Subscription};

use super::Hears;
use super::commands::{Commands, options};
use super::metrics::Metrics;
use super::outgoing::{self, Channels, Outgoing};
use super::watch::Watch;
use super::wire::decode;

/// News that a slow listener may be behind by, before it misses some.
const NEWS_KEPT: usize = 2048;
/// A subscription that failed is tried again, on the same connection.
const SUBSCRIBE_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct RedisBus {
    /// `None`: news may have been missed.
    local: broadcast::Sender<Option<News>>,
    outgoing: Outgoing,
    origin: Uuid,
    channels: Channels,
    hears: Hears,
    watch: Watch,
    metrics: Metrics,
}

/// The channel that a node hears itself on, to know that it hears. On the same node of a cluster as the news, and the same connection.
pub(super) fn echo_channel(news: &str, origin: Uuid) -> String {
    format!("{news}:echo:{origin}")
}

impl RedisBus {
    /// The bus, and what sends its news for as long as it is polled.
    pub fn new(
        prefix: Arc<str>,
        origin: Uuid,
        hears: Hears,
        commands: Commands,
        watch: Watch,
        metrics: Metrics,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let news = format!("{{{prefix}:news}}");
        let channels = Channels { ended: format!("{news}:ended").into(), news: news.into() };
        let (outgoing, sender) = outgoing::queue(origin, channels.clone(), commands, metrics.clone());
        let local = broadcast::Sender::new(NEWS_KEPT);
        (Arc::new(Self { local, outgoing, origin, channels, hears, watch, metrics }), sender.run())
    }

    pub fn echo_channel(&self) -> String {
        echo_channel(&self.channels.news, self.origin)
    }

    /// Hears the other nodes for as long as it is polled.
    pub async fn listen(self: Arc<Self>, client: Client, timeout: Duration) {
        let (mut connects, mut messages) = (client.reconnect_rx(), client.message_rx());
        let echo = self.echo_channel();
        let mut wanted = vec![self.channels.news.to_string(), echo.clone()];
        wanted.extend((self.hears == Hears::All).then(|| self.channels.ended.to_string()));
        let client = client.with_options(&options(timeout));
        let mut is_subscribed = true;
        loop {
            tokio::select! {
                connected = connects.recv() => match connected {
                    Ok(_) | Err(RecvError::Lagged(_)) => is_subscribed = false,
                    Err(RecvError::Closed) => return,
                },
                message = messages.recv() => match message {
                    Ok(message) if *message.channel == *echo => self.watch.heard(&bytes_of(message)),
                    Ok(message) => self.hear(&bytes_of(message)),
                    Err(RecvError::Lagged(_)) => self.missed(),
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(SUBSCRIBE_AGAIN), if !is_subscribed => {}
            }
            if !is_subscribed && client.subscribe(wanted.clone()).await.is_ok() {
                is_subscribed = true;
                self.missed();
                self.watch.subscribed();
            }
        }
    }

    fn hear(&self, message: &[u8]) {
        let Some(message) = decode(message) else {
            tracing::debug!(bytes = message.len(), "a message on the channel of news can't be read");
            return self.missed();
        };
        if message.origin == self.origin {
            return;
        }
        for told in message.told {
            match told {
                Some(news) => {
                    self.metrics.news_received.inc();
                    self.tell(Some(news));
                }
                None => self.missed(),
            }
        }
    }

    fn missed(&self) {
        self.metrics.news_missed.inc();
        self.tell(None);
    }

    fn tell(&self, told: Option<News>) {
        // The only failure is that nobody listens.
        let _ = self.local.send(told);
    }
}

fn bytes_of(message: Message) -> Bytes {
    message.value.into_bytes().unwrap_or_default()
}

impl Bus for RedisBus {
    fn publish(&self, news: News) {
        self.tell(Some(news.clone()));
        self.outgoing.put(news);
    }

    fn reach(&self) -> Option<Reach> {
        Some(self.watch.now())
    }

    fn subscribe(&self) -> Box<dyn Subscription> {
        Box::new(Listener { receiver: self.local.subscribe() })
    }
}

struct Listener {
    receiver: broadcast::Receiver<Option<News>>,
}

#[async_trait]
impl Subscription for Listener {
    async fn next(&mut self) -> Option<News> {
        match self.receiver.recv().await {
            Ok(told) => told,
            Err(RecvError::Lagged(_)) => None,
            // The bus is gone: nothing will ever happen.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
