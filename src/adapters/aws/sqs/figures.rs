//! The queue's figures as SQS tells them, about a second old: what is shown as backlog, and whether more may be sent.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName::{
    ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible,
    MaximumMessageSize,
};

use crate::adapters::locked;
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::clock::Clock;

use super::batch::BYTES_MAX;
use super::errors::Refused;
use super::metrics::Metrics;

/// How old figures may be. SQS's own are approximate and up to a minute behind.
const AGE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub ready: u64,
    pub leased: u64,
    pub delayed: u64,
    /// Of a message, in bytes.
    pub message_bytes_max: usize,
    /// Since when there was something ready whenever this node looked.
    pub ready_since: Option<Timestamp>,
    asked_at: Duration,
}

pub(super) struct Figures {
    client: Client,
    url: String,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    jobs_max: u64,
    known: Mutex<Option<Counts>>,
    /// Jobs that this node sent, less those that it finished, since the figures were asked for.
    since: AtomicI64,
    /// One asks for all.
    asking: tokio::sync::Mutex<()>,
}

impl Figures {
    pub fn new(client: Client, url: String, clock: Arc<dyn Clock>, metrics: Metrics, jobs_max: u64) -> Self {
        let (known, since, asking) = (Mutex::default(), AtomicI64::new(0), tokio::sync::Mutex::default());
        Self { client, url, clock, metrics, jobs_max, known, since, asking }
    }

    fn fresh(&self) -> Option<Counts> {
        let now = self.clock.monotonic();
        locked(&self.known).filter(|known| now.saturating_sub(known.asked_at) < AGE_MAX)
    }

    pub async fn get(&self) -> Result<Counts, StoreError> {
        if let Some(counts) = self.fresh() {
            return Ok(counts);
        }
        let _asking = self.asking.lock().await;
        match self.fresh() {
            Some(counts) => Ok(counts),
            None => Ok(self.ask().await?),
        }
    }

    async fn ask(&self) -> Result<Counts, Refused> {
        self.metrics.request("figures", 0);
        let (asked_at, before) = (self.clock.monotonic(), self.since.load(Ordering::Relaxed));
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let names = [
            ApproximateNumberOfMessages,
            ApproximateNumberOfMessagesDelayed,
            ApproximateNumberOfMessagesNotVisible,
            MaximumMessageSize,
        ];
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await.map_err(|error| {
            self.metrics.failed("figures");
            Refused::from_sdk(error)
        })?;
        let number = |name| answer.attributes()?.get(&name)?.parse::<u64>().ok();
        let ready = number(ApproximateNumberOfMessages).unwrap_or_default();
        let mut known = locked(&self.known);
        let ready_since = known.and_then(|before| before.ready_since).unwrap_or_else(|| self.clock.now());
        let counts = Counts {
            ready,
            leased: number(ApproximateNumberOfMessagesNotVisible).unwrap_or_default(),
            delayed: number(ApproximateNumberOfMessagesDelayed).unwrap_or_default(),
            message_bytes_max: number(MaximumMessageSize).map_or(BYTES_MAX, |most| most as usize).min(BYTES_MAX),
            ready_since: (ready > 0).then_some(ready_since),
            asked_at,
        };
        self.since.fetch_sub(before, Ordering::Relaxed);
        *known = Some(counts);
        Ok(counts)
    }

    /// How large a message may be; the error says that no more may be sent. Figures that are known are asked for again behind
    /// the sender, not before it.
    pub async fn admit(self: &Arc<Self>) -> Result<usize, StoreError> {
        let known = *locked(&self.known);
        let counts = match known {
            Some(counts) if self.is_full(&counts) => self.get().await?,
            Some(counts) => {
                if self.fresh().is_none() {
                    self.refresh();
                }
                counts
            }
            None => self.get().await?,
        };
        if self.is_full(&counts) {
            return Err(StoreError::Full(format!("{} jobs wait or run (queue.jobs_max)", self.jobs_max)));
        }
        Ok(counts.message_bytes_max)
    }

    fn is_full(&self, counts: &Counts) -> bool {
        let jobs = counts.ready + counts.leased + counts.delayed;
        jobs.saturating_add_signed(self.since.load(Ordering::Relaxed)) >= self.jobs_max
    }

    fn refresh(self: &Arc<Self>) {
        let figures = self.clone();
        tokio::spawn(async move {
            let Ok(_asking) = figures.asking.try_lock() else { return };
            if figures.fresh().is_none()
                && let Err(error) = figures.ask().await
            {
                tracing::warn!(?error, "the queue's figures can't be had, the last known ones hold");
            }
        });
    }

    pub fn sent(&self) {
        self.since.fetch_add(1, Ordering::Relaxed);
    }

    pub fn finished(&self) {
        self.since.fetch_sub(1, Ordering::Relaxed);
    }
}
