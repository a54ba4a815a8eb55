//! Polls: requests that wait at SQS for messages, for as many as there are free places, and the shelf where messages lie until
//! whoever asked takes them.
//!
//! ```text
//!  receive ──starts what is missing──▶ poll ──▶ shelf ──▶ receive
//!     │                                             └─nobody came within SHELF_MAX──▶ given back, uncounted
//!     └── goes away, or has enough: its polls go on, and the next receive counts on them
//! ```
//!
//! A poll that is given up at our end may still take messages at SQS's, and nobody would see them until their time is over. So
//! polls are never given up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::MessageSystemAttributeName::{ApproximateReceiveCount, SentTimestamp};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::adapters::locked;
use crate::domain::job::Payload;
use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::clock::Clock;

use super::errors::Refused;
use super::leases::Source;
use super::message::Message;
use super::metrics::Metrics;

/// As SQS has it.
const MESSAGES_MAX: usize = 10;
const WAIT_S_MAX: u64 = 20;
/// Beyond a poll's wait, before its request has failed: SQS answers a wait that is over at once.
pub(super) const POLL_SLACK: Duration = Duration::from_secs(5);
/// Beyond that, before it is left alone, whatever the client does with it: some requests were seen to hang.
const WATCHDOG_SLACK: Duration = Duration::from_secs(2);
/// How long a message waits on the shelf for a receiver. The next one comes at once, or there is none any more.
const SHELF_MAX: Duration = Duration::from_secs(1);

/// A message that was received, and whom nobody has yet.
#[derive(Debug)]
pub(super) struct Arrived {
    pub message: Message,
    pub receipt: String,
    pub received: u32,
    pub sent_ms: u64,
    /// When it arrived here, monotonic.
    pub at: Duration,
    pub source: Source,
    number: u64,
}

pub(super) struct Polls {
    client: Client,
    url: String,
    source: Source,
    visibility_s: i32,
    artifacts: Arc<dyn ArtifactStore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    state: Mutex<State>,
    told: Notify,
    counter: AtomicU64,
}

#[derive(Default)]
struct State {
    shelf: VecDeque<Arrived>,
    /// Messages that the polls under way may bring.
    awaited: usize,
    failed: Option<StoreError>,
    /// When the oldest message of the latest poll that brought some was sent.
    oldest_sent_ms: u64,
}

impl Polls {
    pub fn new(
        client: Client,
        url: String,
        source: Source,
        visibility: Duration,
        artifacts: Arc<dyn ArtifactStore>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let visibility_s = i32::try_from(visibility.as_secs()).unwrap_or(i32::MAX);
        let (state, told, counter) = (Mutex::default(), Notify::new(), AtomicU64::new(0));
        Self { client, url, source, visibility_s, artifacts, clock, metrics, state, told, counter }
    }

    /// Takes up to `max` messages from the shelf, the longest queued first.
    pub fn take(&self, max: usize) -> Vec<Arrived> {
        let mut state = locked(&self.state);
        state.shelf.make_contiguous().sort_by_key(|one| (one.sent_ms, one.message.job.invocation));
        let count = max.min(state.shelf.len());
        state.shelf.drain(..count).collect()
    }

    /// Something came, or a poll failed, or none is under way: look again. Create before looking.
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.told.notified()
    }

    /// Why nothing comes, if no poll is under way because the last ones failed.
    pub fn failure(&self) -> Option<StoreError> {
        let mut state = locked(&self.state);
        if state.awaited == 0 { state.failed.take() } else { None }
    }

    pub fn oldest_sent_ms(&self) -> u64 {
        locked(&self.state).oldest_sent_ms
    }

    /// Starts polls until those under way may bring `max` messages. `unclaimed` is given what nobody takes.
    pub fn top_up<F>(self: &Arc<Self>, max: usize, wait: Duration, unclaimed: F) -> Vec<JoinHandle<()>>
    where
        F: Fn(Vec<Arrived>) + Clone + Send + 'static,
    {
        // A part of a second is a second: zero would be no wait.
        let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let wait_s = wait_s.min(WAIT_S_MAX) as i32;
        let missing = {
            let mut state = locked(&self.state);
            let missing = max.saturating_sub(state.awaited + state.shelf.len());
            state.awaited += missing;
            missing
        };
        let sizes = (0..missing).step_by(MESSAGES_MAX).map(|begin| MESSAGES_MAX.min(missing - begin));
        sizes.map(|count| tokio::spawn(self.clone().poll(count, wait_s, unclaimed.clone()))).collect()
    }

    async fn poll<F: Fn(Vec<Arrived>) + Send + 'static>(self: Arc<Self>, count: usize, wait_s: i32, unclaimed: F) {
        self.metrics.request("receive", 0);
        let within = Duration::from_secs(wait_s.unsigned_abs().into()) + POLL_SLACK + WATCHDOG_SLACK;
        let result = match tokio::time::timeout(within, self.ask(count, wait_s)).await {
            Ok(result) => result,
            Err(_) => Err(Refused::Unavailable("a poll hung and was left alone".to_owned())),
        };
        let numbers: Vec<u64> = {
            let mut state = locked(&self.state);
            state.awaited = state.awaited.saturating_sub(count);
            match result {
                Ok(arrived) => {
                    state.failed = None;
                    if let Some(oldest) = arrived.iter().map(|one| one.sent_ms).min() {
                        state.oldest_sent_ms = oldest;
                    }
                    let numbers = arrived.iter().map(|one| one.number).collect();
                    state.shelf.extend(arrived);
                    numbers
                }
                Err(error) => {
                    self.metrics.failed("receive");
                    tracing::debug!(?error, "a poll failed");
                    state.failed = Some(error.into());
                    Vec::new()
                }
            }
        };
        self.told.notify_waiters();
        if !numbers.is_empty() {
            tokio::spawn(self.clear(numbers, unclaimed));
        }
    }

    /// Takes from the shelf what nobody came for.
    async fn clear<F: Fn(Vec<Arrived>) + Send + 'static>(self: Arc<Self>, numbers: Vec<u64>, unclaimed: F) {
        tokio::time::sleep(SHELF_MAX).await;
        let left: Vec<Arrived> = {
            let mut state = locked(&self.state);
            let (left, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.shelf).into_iter().partition(|one| numbers.contains(&one.number));
            state.shelf = others.into();
            left
        };
        if !left.is_empty() {
            unclaimed(left);
        }
    }

    async fn ask(&self, count: usize, wait_s: i32) -> Result<Vec<Arrived>, Refused> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(count as i32)
            .wait_time_seconds(wait_s)
            .visibility_timeout(self.visibility_s)
            .message_system_attribute_names(ApproximateReceiveCount)
            .message_system_attribute_names(SentTimestamp)
            .send()
            .await
            .map_err(Refused::from_sdk)?;
        let at = self.clock.monotonic();
        let messages = answer.messages.unwrap_or_default();
        self.metrics.received(messages.len());
        let mut arrived: Vec<Arrived> = messages.into_iter().filter_map(|message| self.read(message, at)).collect();
        futures_util::future::join_all(arrived.iter_mut().map(|one| self.bring_payload(&mut one.message))).await;
        Ok(arrived)
    }

    /// What was placed beside the message comes back into the job. What can't be had now is left for the worker to ask for.
    async fn bring_payload(&self, message: &mut Message) {
        let Some(digest) = message.beside else { return };
        match self.artifacts.get(digest).await {
            Ok(bytes) => message.job.payload = Payload::Inline(bytes),
            Err(error) => tracing::warn!(invocation_id = %message.job.invocation, %error, "payload not read yet"),
        }
    }

    /// What can't be read stays where it is: SQS hands it out again, and puts it aside in the end.
    fn read(&self, message: aws_sdk_sqs::types::Message, at: Duration) -> Option<Arrived> {
        let number_of = |name| message.attributes.as_ref()?.get(&name)?.parse::<u64>().ok();
        let received = number_of(ApproximateReceiveCount).and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        let sent_ms = number_of(SentTimestamp).unwrap_or_default();
        let read = Message::decode(message.body.as_deref().unwrap_or_default());
        let error = match (read, message.receipt_handle) {
            (Ok(read), Some(receipt)) => {
                let number = self.counter.fetch_add(1, Ordering::Relaxed);
                return Some(Arrived { message: read, receipt, received, sent_ms, at, source: self.source, number });
            }
            (Err(error), _) => error,
            (Ok(_), None) => "it has no receipt".to_owned(),
        };
        self.metrics.returned("unreadable");
        let id = message.message_id.unwrap_or_default();
        tracing::warn!(message_id = id, error, "a message in the job queue is not a job of this faasd's");
        None
    }
}
