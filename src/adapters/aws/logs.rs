//! Final records as events in CloudWatch Logs: batched, bounded, and dropped with a count rather than waited for.
//!
//! ```text
//!  append ──try──▶ waiting ──batch──▶ PutLogEvents, in this node's stream
//!            └─ full: dropped, counted      └─ failed several times: dropped, counted
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::domain::invocation::StoredRecord;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::record_log::RecordLog;

/// As CloudWatch has it, of a request: events, and their bytes with so many more for each.
const EVENTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 1 << 20;
const EVENT_OVERHEAD_BYTES: usize = 26;
/// Of one event. What is larger goes without its result and outputs, which the record itself has.
const EVENT_BYTES_MAX: usize = 256 << 10;
/// From the first event of a batch until it goes.
const LINGER: Duration = Duration::from_secs(1);
/// Records that wait, and what they hold in memory together, about: some seconds of CloudWatch being away under load.
const WAITING_MAX: usize = 20_000;
const WAITING_BYTES_MAX: usize = 32 << 20;
/// What a record takes beside its texts, about.
const RECORD_BYTES: usize = 2 << 10;
/// Beside the tries of the client.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

pub struct CloudWatchLogs {
    inbox: mpsc::Sender<(Arc<StoredRecord>, Timestamp)>,
    bytes: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
    dropped: IntCounterVec,
    writer: std::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Writer {
    client: Client,
    group: String,
    stream: String,
    bytes: Arc<AtomicUsize>,
    dropped: IntCounterVec,
}

impl CloudWatchLogs {
    /// Writes to the stream of this name in a group that is there; the stream is made when first written to.
    pub fn start(
        sdk: &SdkConfig,
        group: &str,
        stream: &str,
        clock: Arc<dyn Clock>,
        metrics: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let dropped =
            Opts::new("faasd_record_log_dropped_total", "Records that did not get to CloudWatch Logs, by reason");
        let dropped = IntCounterVec::new(dropped, &["reason"])?;
        metrics.register(Box::new(dropped.clone()))?;
        let (inbox, waiting) = mpsc::channel(WAITING_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            client: Client::new(sdk),
            // A stream's name may hold neither.
            stream: stream.replace([':', '*'], "-"),
            group: group.to_owned(),
            bytes: bytes.clone(),
            dropped: dropped.clone(),
        };
        let writer = std::sync::Mutex::new(Some(tokio::spawn(writer.run(waiting))));
        Ok(Self { inbox, bytes, clock, dropped, writer })
    }

    /// Takes nothing more, and writes what waits, if that takes no longer than `within`.
    pub async fn close(self, within: Duration) {
        let Self { inbox, writer, .. } = self;
        drop(inbox);
        let writer = crate::adapters::locked(&writer).take();
        if let Some(writer) = writer
            && tokio::time::timeout(within, writer).await.is_err()
        {
            tracing::warn!("the last records did not get to CloudWatch Logs in time");
        }
    }
}

/// What it holds in memory, about.
fn weight(record: &StoredRecord) -> usize {
    let record = &record.record;
    RECORD_BYTES
        + record.stdout.len()
        + record.stderr.len()
        + record.result.as_ref().map_or(0, |result| result.get().len())
}

impl RecordLog for CloudWatchLogs {
    fn append(&self, record: Arc<StoredRecord>) {
        let bytes = weight(&record);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > WAITING_BYTES_MAX
            || self.inbox.try_send((record, self.clock.now())).is_err()
        {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.with_label_values(&["full"]).inc();
        }
    }
}

/// The record's JSON; without result and outputs where that is too much for an event.
fn text(stored: &StoredRecord) -> Option<String> {
    let whole = serde_json::to_string(&stored.record).ok()?;
    if whole.len() <= EVENT_BYTES_MAX {
        return Some(whole);
    }
    let mut short = stored.record.clone();
    short.result = None;
    short.stdout.clear();
    short.stderr.clear();
    serde_json::to_string(&short).ok().filter(|text| text.len() <= EVENT_BYTES_MAX)
}

impl Writer {
    /// Ends when the log is closed and all that waited is written.
    async fn run(self, mut waiting: mpsc::Receiver<(Arc<StoredRecord>, Timestamp)>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(event) => event,
                None => match waiting.recv().await {
                    Some(taken) => match self.event(taken) {
                        Some(event) => event,
                        None => continue,
                    },
                    None => return,
                },
            };
            let (mut bytes, mut batch) = (size(&first), vec![first]);
            let until = Instant::now() + LINGER;
            while batch.len() < EVENTS_MAX
                && let Ok(Some(taken)) = tokio::time::timeout_at(until, waiting.recv()).await
            {
                let Some(event) = self.event(taken) else { continue };
                bytes += size(&event);
                if bytes > BYTES_MAX {
                    next = Some(event);
                    break;
                }
                batch.push(event);
            }
            // They must be in order; the clock may have been set back between.
            batch.sort_by_key(InputLogEvent::timestamp);
            self.write(batch).await;
        }
    }

    fn event(&self, (record, at): (Arc<StoredRecord>, Timestamp)) -> Option<InputLogEvent> {
        self.bytes.fetch_sub(weight(&record), Ordering::Relaxed);
        let at = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let event = text(&record).and_then(|text| InputLogEvent::builder().timestamp(at).message(text).build().ok());
        if event.is_none() {
            self.dropped.with_label_values(&["too_large"]).inc();
        }
        event
    }

    async fn write(&self, batch: Vec<InputLogEvent>) {
        let count = batch.len() as u64;
        for attempt in 1..=TRIES_MAX {
            let request = self.client.put_log_events().log_group_name(&self.group).log_stream_name(&self.stream);
            let error = match request.set_log_events(Some(batch.clone())).send().await {
                Ok(answer) => {
                    if let Some(rejected) = answer.rejected_log_events_info() {
                        self.dropped.with_label_values(&["rejected"]).inc();
                        tracing::warn!(?rejected, "CloudWatch Logs took some records for too old or too new");
                    }
                    return;
                }
                Err(error) => error,
            };
            if error.code() == Some("ResourceNotFoundException") {
                self.make_stream().await;
            } else if attempt < TRIES_MAX {
                tokio::time::sleep(PAUSE * attempt).await;
            }
            if attempt == TRIES_MAX {
                tracing::warn!(records = count, error = %DisplayErrorContext(&error), "records did not get to CloudWatch Logs");
            }
        }
        self.dropped.with_label_values(&["failed"]).inc_by(count);
    }

    async fn make_stream(&self) {
        let request = self.client.create_log_stream().log_group_name(&self.group).log_stream_name(&self.stream);
        match request.send().await {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => {}
            Err(error) => {
                tracing::warn!(group = self.group, error = %DisplayErrorContext(&error), "the log stream can't be made: is the group there?");
            }
        }
    }
}

/// As CloudWatch counts it.
fn size(event: &InputLogEvent) -> usize {
    event.message().len() + EVENT_OVERHEAD_BYTES
}
