//! Requests that go together: what comes within a short while of each other is one request of up to ten entries.
//!
//! Whoever hands an entry in may go away; the entry goes on. What SQS refuses of a batch for a reason of its own is tried again,
//! a bounded number of times.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    SendMessageBatchRequestEntry,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::errors::{Refused, refused};
use super::metrics::Metrics;

/// As SQS has it.
const ENTRIES_MAX: usize = 10;
/// Of all messages of a batch together, as of one alone.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Entries that wait to be taken into a batch: as many as all flights carry. Whoever comes then waits.
const WAITING_MAX: usize = 640;
/// Requests of one kind under way at once. More than a queue answers in parallel, and few enough connections.
const FLIGHTS_MAX: usize = 64;
/// Tries of an entry that SQS refused for a reason of its own, beside those of a whole request, which are the client's.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// One kind of request that can be made for many at once.
#[async_trait]
pub(super) trait Together: Send + Sync + 'static {
    type Entry: Clone + Send + Sync + 'static;

    fn name(&self) -> &'static str;

    fn bytes(entry: &Self::Entry) -> usize;

    /// For each entry what became of it; the error is that of the whole request.
    async fn request(&self, entries: &[Self::Entry]) -> Result<Vec<Result<(), Refused>>, Refused>;
}

type Waiting<E> = (E, oneshot::Sender<Result<(), Refused>>);

pub(super) struct Batches<T: Together> {
    inbox: mpsc::Sender<Waiting<T::Entry>>,
}

impl<T: Together> Batches<T> {
    pub fn start(kind: T, linger: Duration, metrics: Metrics) -> Self {
        let (inbox, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(collect(Arc::new(kind), waiting, linger, metrics));
        Self { inbox }
    }

    /// What became of the entry.
    pub async fn make(&self, entry: T::Entry) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let stopped = || Refused::Unavailable("the queue is closing".to_owned());
        self.inbox.send((entry, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

/// Ends when nobody can hand in any more.
async fn collect<T: Together>(
    kind: Arc<T>,
    mut waiting: mpsc::Receiver<Waiting<T::Entry>>,
    linger: Duration,
    metrics: Metrics,
) {
    let flights = Arc::new(Semaphore::new(FLIGHTS_MAX));
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(entry) => entry,
            None => match waiting.recv().await {
                Some(entry) => entry,
                None => return,
            },
        };
        let (mut bytes, mut batch) = (T::bytes(&first.0), vec![first]);
        let until = Instant::now() + linger;
        while batch.len() < ENTRIES_MAX
            && let Ok(Some(entry)) = tokio::time::timeout_at(until, waiting.recv()).await
        {
            bytes += T::bytes(&entry.0);
            if bytes > BYTES_MAX {
                next = Some(entry);
                break;
            }
            batch.push(entry);
        }
        let Ok(flight) = flights.clone().acquire_owned().await else { return };
        let (kind, metrics) = (kind.clone(), metrics.clone());
        tokio::spawn(async move {
            fly(kind.as_ref(), batch, &metrics).await;
            drop(flight);
        });
    }
}

async fn fly<T: Together>(kind: &T, batch: Vec<Waiting<T::Entry>>, metrics: &Metrics) {
    let mut left = batch;
    for attempt in 1..=TRIES_MAX {
        let entries: Vec<T::Entry> = left.iter().map(|(entry, _)| entry.clone()).collect();
        metrics.request(kind.name(), entries.len());
        let results = match kind.request(&entries).await {
            Ok(results) => results,
            Err(error) => {
                metrics.failed(kind.name());
                return left.into_iter().for_each(|(_, answer)| tell(answer, Err(error.clone())));
            }
        };
        let mut again = Vec::new();
        for ((entry, answer), result) in left.into_iter().zip(results) {
            match result {
                Err(Refused::Unavailable(_)) if attempt < TRIES_MAX => again.push((entry, answer)),
                result => tell(answer, result),
            }
        }
        if again.is_empty() {
            return;
        }
        left = again;
        tokio::time::sleep(PAUSE * attempt).await;
    }
}

fn tell(answer: oneshot::Sender<Result<(), Refused>>, result: Result<(), Refused>) {
    // Whoever asked may have gone away.
    let _ = answer.send(result);
}

/// The entries of a request are named by their place in it.
fn results(count: usize, failed: &[BatchResultErrorEntry]) -> Vec<Result<(), Refused>> {
    let mut results: Vec<_> = (0..count).map(|_| Ok(())).collect();
    for entry in failed {
        if let Some(result) = entry.id().parse().ok().and_then(|place: usize| results.get_mut(place)) {
            *result = Err(refused(entry.code(), entry.sender_fault(), entry.message().unwrap_or_default()));
        }
    }
    results
}

/// A message to be sent.
#[derive(Clone)]
pub(super) struct Sending {
    pub body: String,
    pub delay_s: i32,
    /// Of a FIFO queue: the group, and what tells this message from others.
    pub fifo: Option<(String, String)>,
}

pub(super) struct Sends {
    pub client: Client,
    pub url: String,
}

#[async_trait]
impl Together for Sends {
    type Entry = Sending;

    fn name(&self) -> &'static str {
        "send"
    }

    fn bytes(entry: &Sending) -> usize {
        entry.body.len()
    }

    async fn request(&self, entries: &[Sending]) -> Result<Vec<Result<(), Refused>>, Refused> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for (place, entry) in entries.iter().enumerate() {
            let mut made = SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(&entry.body);
            if let Some((group, deduplication)) = &entry.fifo {
                made = made.message_group_id(group).message_deduplication_id(deduplication);
            } else if entry.delay_s > 0 {
                made = made.delay_seconds(entry.delay_s);
            }
            request = request.entries(made.build().map_err(Refused::wrong)?);
        }
        let answer = request.send().await.map_err(Refused::from_sdk)?;
        Ok(results(entries.len(), answer.failed()))
    }
}

/// Receipts of messages to be deleted.
pub(super) struct Deletes {
    pub client: Client,
    pub url: String,
}

#[async_trait]
impl Together for Deletes {
    type Entry = String;

    fn name(&self) -> &'static str {
        "delete"
    }

    fn bytes(_: &String) -> usize {
        0
    }

    async fn request(&self, entries: &[String]) -> Result<Vec<Result<(), Refused>>, Refused> {
        let mut request = self.client.delete_message_batch().queue_url(&self.url);
        for (place, receipt) in entries.iter().enumerate() {
            let made = DeleteMessageBatchRequestEntry::builder().id(place.to_string()).receipt_handle(receipt);
            request = request.entries(made.build().map_err(Refused::wrong)?);
        }
        let answer = request.send().await.map_err(Refused::from_sdk)?;
        Ok(results(entries.len(), answer.failed()))
    }
}

/// Receipts, and in how many seconds their messages are visible again.
pub(super) struct Visibilities {
    pub client: Client,
    pub url: String,
}

#[async_trait]
impl Together for Visibilities {
    type Entry = (String, i32);

    fn name(&self) -> &'static str {
        "visibility"
    }

    fn bytes(_: &(String, i32)) -> usize {
        0
    }

    async fn request(&self, entries: &[(String, i32)]) -> Result<Vec<Result<(), Refused>>, Refused> {
        let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
        for (place, (receipt, seconds)) in entries.iter().enumerate() {
            let made = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(place.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(*seconds);
            request = request.entries(made.build().map_err(Refused::wrong)?);
        }
        let answer = request.send().await.map_err(Refused::from_sdk)?;
        Ok(results(entries.len(), answer.failed()))
    }
}
