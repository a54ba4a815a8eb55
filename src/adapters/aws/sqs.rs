//! The job queue on SQS: a job is a message, a lease its receipt, a dead letter a row beside it.
//!
//! ```text
//!  send ──batch──▶ SQS ──poll──▶ lease ──▶ delete                                     acknowledge
//!                   ▲              ├─────▶ visible again after the delay              give back, an attempt
//!                   └──sent anew───┴─────▶ sent with the attempts so far, then delete give back, no attempt
//!                                  └─────▶ letter written, then delete                bury
//! ```
//!
//! What SQS can't keep of the port: a job that is sent twice is two messages, owners don't take turns, and a lease outlives the
//! process that held it by its time. Records are fenced by attempt, so each is a retry and no more (docs/aws.md).

mod batch;
mod errors;
mod figures;
mod leases;
mod message;
pub mod metrics;
mod poll;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::StalledStreamProtectionConfig;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::adapters::aws::dynamodb;
use crate::adapters::locked;
use crate::config::Config;
use crate::domain::job::{Backlog, DeadLetter, Job, Lease, LeaseToken, Payload};
use crate::domain::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::artifacts::ArtifactStore;
use crate::ports::clock::Clock;
use crate::ports::queue::{JobQueue, QueueError};

use batch::{Batches, Deletes, Sending, Sends, Visibilities};
use figures::Figures;
use leases::{Held, Leases, Source};
use message::Message;
use metrics::Metrics;
use poll::{Arrived, POLL_SLACK, Polls};

/// As SQS has it: of a new message, and from its receipt to the end of its longest time in flight, with a minute to spare.
const DELAY_MAX: Duration = Duration::from_secs(900);
const IN_FLIGHT_MAX: Duration = Duration::from_secs(12 * 3600 - 60);
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Before a job comes back that is beyond its owner's share of this node: another node may have a place for it by then.
const OVER_SHARE_DELAY: Duration = Duration::from_secs(2);
/// Before the next question after one that brought nothing else; doubled each time. Without it a node would turn over all that such
/// an owner has.
const OVER_SHARE_PAUSE: Duration = Duration::from_millis(50);
const OVER_SHARE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where jobs that were given up are written.
#[async_trait]
pub trait Letters: Send + Sync + 'static {
    /// Durable on return. Writing the same job's again changes nothing.
    async fn write(&self, letter: DeadLetter) -> Result<(), StoreError>;

    async fn count(&self) -> Result<u64, StoreError>;
}

#[async_trait]
impl Letters for dynamodb::Letters {
    async fn write(&self, letter: DeadLetter) -> Result<(), StoreError> {
        dynamodb::Letters::write(self, &letter).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        dynamodb::Letters::count(self).await
    }
}

pub struct Queue(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    letters: Arc<dyn Letters>,
    artifacts: Arc<dyn ArtifactStore>,
    visibility: Duration,
    is_fifo: bool,
    polls: Arc<Polls>,
    /// Of the queue where SQS puts what was received too often.
    spent: Option<SpentQueue>,
    sends: Batches<Sends>,
    deletes: Batches<Deletes>,
    visibilities: Batches<Visibilities>,
    figures: Arc<Figures>,
    leases: Mutex<Leases>,
    metrics: Metrics,
    /// Tells this run's leases from others'.
    run: u64,
}

struct SpentQueue {
    polls: Arc<Polls>,
    deletes: Batches<Deletes>,
    visibilities: Batches<Visibilities>,
}

/// Waits for a message, so it has time-outs and connections of its own. A poll that failed is made anew by whoever still wants it.
fn polling_client(sdk: &SdkConfig) -> Client {
    let whole = WAIT_MAX + POLL_SLACK;
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(whole)
        .operation_attempt_timeout(whole)
        .read_timeout(whole)
        .connect_timeout(POLL_SLACK)
        .build();
    let config = aws_sdk_sqs::config::Builder::from(sdk)
        .http_client(super::client::http_client())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    Client::from_conf(config.build())
}

impl Queue {
    pub fn open(
        sdk: &SdkConfig,
        config: &Config,
        letters: Arc<dyn Letters>,
        artifacts: Arc<dyn ArtifactStore>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let run = getrandom::u64().map_err(|error| StoreError::Unavailable(format!("read randomness: {error}")))?;
        let (client, polling) = (Client::new(sdk), polling_client(sdk));
        let linger = Duration::from_millis(config.aws.linger_ms);
        let visibility = Duration::from_secs(config.queue.visibility_s);
        let url = config.aws.queue_url.clone();
        let is_fifo = url.ends_with(".fifo");
        let polls = |source, url: &str| {
            let (artifacts, clock, metrics) = (artifacts.clone(), clock.clone(), metrics.clone());
            Arc::new(Polls::new(polling.clone(), url.to_owned(), source, visibility, artifacts, clock, metrics))
        };
        let deletes = |url: &str| {
            Batches::start(Deletes { client: client.clone(), url: url.to_owned() }, linger, metrics.clone())
        };
        let visibilities = |url: &str| {
            Batches::start(Visibilities { client: client.clone(), url: url.to_owned() }, linger, metrics.clone())
        };
        let spent_url = &config.aws.dead_letter_queue_url;
        let spent = (!spent_url.is_empty()).then(|| SpentQueue {
            polls: polls(Source::Spent, spent_url),
            deletes: deletes(spent_url),
            visibilities: visibilities(spent_url),
        });
        let figures = Figures::new(client.clone(), url.clone(), clock.clone(), metrics.clone(), config.queue.jobs_max);
        Ok(Self(Arc::new(Inner {
            polls: polls(Source::Jobs, &url),
            spent,
            deletes: deletes(&url),
            visibilities: visibilities(&url),
            sends: Batches::start(Sends { client: client.clone(), url }, linger, metrics.clone()),
            figures: Arc::new(figures),
            leases: Mutex::default(),
            clock,
            letters,
            artifacts,
            visibility,
            is_fifo,
            metrics,
            run,
        })))
    }
}

#[async_trait]
impl JobQueue for Queue {
    async fn send(&self, job: Job, delay: Duration) -> Result<(), StoreError> {
        let bytes_max = self.0.figures.admit().await?;
        let (message, inner) = (Message::new(job), self.0.clone());
        // Whoever goes away half-way has sent it all the same, or not at all.
        let sent = tokio::spawn(async move { inner.send(message, delay, None, bytes_max).await });
        sent.await.map_err(|_| StoreError::Unavailable("sending was cut short".to_owned()))??;
        self.0.figures.sent();
        Ok(())
    }

    async fn receive(&self, max: usize, per_owner_max: usize, wait: Duration) -> Result<Vec<Lease>, StoreError> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut pause = OVER_SHARE_PAUSE;
        loop {
            let news = self.0.polls.news();
            let started = self.0.polls.top_up(max, wait, self.0.unclaimed());
            if wait.is_zero() {
                for poll in started {
                    // It has told its failure already.
                    let _ = poll.await;
                }
            }
            let (leases, turned_away) = self.0.hand_out(max, per_owner_max);
            if !leases.is_empty() {
                return Ok(leases);
            }
            if let Some(error) = self.0.polls.failure() {
                return Err(error);
            }
            if wait.is_zero() || tokio::time::Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            if turned_away {
                tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + pause)).await;
                pause = (pause * 2).min(OVER_SHARE_PAUSE_MAX);
                continue;
            }
            // Either way it looks again.
            let _ = tokio::time::timeout_at(deadline, news).await;
        }
    }

    async fn given_up(&self, max: usize) -> Result<Vec<Lease>, StoreError> {
        let Some(spent) = &self.0.spent else { return Ok(Vec::new()) };
        for poll in spent.polls.top_up(max, Duration::ZERO, |_| ()) {
            let _ = poll.await;
        }
        let arrived = spent.polls.take(max);
        if let Some(error) = spent.polls.failure().filter(|_| arrived.is_empty()) {
            return Err(error);
        }
        let now = self.0.clock.monotonic();
        Ok(arrived.into_iter().map(|one| self.0.lease(one, now)).collect())
    }

    async fn extend(&self, token: &LeaseToken, valid_for: Duration) -> Result<(), QueueError> {
        let number = self.0.number(token)?;
        let now = self.0.clock.monotonic();
        let Some(held) = locked(&self.0.leases).get(number, now).cloned() else { return Err(QueueError::LeaseLost) };
        let changed = self.0.change_visibility(&held, valid_for, now).await;
        let mut leases = locked(&self.0.leases);
        match &changed {
            Ok(()) => leases.extended(number, now.saturating_add(valid_for)),
            Err(QueueError::LeaseLost) => leases.lost(number),
            Err(QueueError::Store(_)) => {}
        }
        changed
    }

    async fn acknowledge(&self, token: &LeaseToken) -> Result<(), QueueError> {
        self.0.settle(token, |inner, held| async move { inner.delete(&held).await }).await
    }

    async fn give_back(&self, token: &LeaseToken, delay: Duration, counted: bool) -> Result<(), QueueError> {
        self.0
            .settle(token, move |inner, held| async move {
                if !counted && held.source == Source::Jobs {
                    return inner.send_anew(&held, delay).await;
                }
                let now = inner.clock.monotonic();
                inner.change_visibility(&held, delay, now).await
            })
            .await
    }

    async fn bury(&self, token: &LeaseToken, reason: &str) -> Result<(), QueueError> {
        let reason = reason.to_owned();
        self.0
            .settle(token, move |inner, held| async move {
                let (job, attempts, died_at) = (held.message.job.clone(), held.attempt, inner.clock.now());
                // First the letter: a crash between leaves both, and the job's next lease finds its record final.
                inner.letters.write(DeadLetter { job, attempts, reason, died_at }).await?;
                inner.delete(&held).await
            })
            .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let counts = self.0.figures.get().await?;
        let dead = self.0.letters.count().await?;
        // What waits now was sent after what was received last, and the queue was not empty when this node looked. CloudWatch's
        // ApproximateAgeOfOldestMessage is exact; this needs no request.
        let oldest_sent = Timestamp(self.0.polls.oldest_sent_ms());
        let oldest = counts.ready_since.map(|since| self.0.clock.now().since(since.max(oldest_sent)));
        let oldest_ms = oldest.map_or(0, |age| age.as_millis() as u64);
        Ok(Backlog { ready: counts.ready, delayed: counts.delayed, leased: counts.leased, oldest_ms, dead })
    }
}

impl Inner {
    /// Places beside the message what does not fit into it.
    async fn send(
        &self,
        mut message: Message,
        delay: Duration,
        again: Option<u64>,
        bytes_max: usize,
    ) -> Result<(), StoreError> {
        if delay > DELAY_MAX || (self.is_fifo && !delay.is_zero()) {
            message.not_before = Some(self.clock.now().after(delay));
        }
        let mut body = message.encode();
        if body.len() > bytes_max
            && let Payload::Inline(bytes) = &message.job.payload
        {
            message.beside = Some(self.artifacts.put(bytes.clone()).await?);
            body = message.encode();
        }
        let delay_s = if self.is_fifo { 0 } else { seconds(delay.min(DELAY_MAX)) };
        let job = &message.job;
        let fifo = self.is_fifo.then(|| {
            let group = job.version.function.to_string();
            let again = again.map_or_else(String::new, |number| format!(".{number:x}"));
            (group, format!("{}{again}", job.invocation))
        });
        Ok(self.sends.make(Sending { body, delay_s, fifo }).await?)
    }

    /// Sent with the attempts so far, then deleted. A crash between leaves two messages, whose attempts are fenced.
    async fn send_anew(&self, held: &Held, delay: Duration) -> Result<(), QueueError> {
        let message = Message { attempts: held.attempt.saturating_sub(1), not_before: None, ..held.message.clone() };
        let again = getrandom::u64().map_err(|error| StoreError::Unavailable(format!("read randomness: {error}")))?;
        self.send(message, delay, Some(again), batch::BYTES_MAX).await?;
        match self.delete(held).await {
            // Sent is sent.
            Err(QueueError::Store(error)) => {
                tracing::warn!(invocation_id = %held.message.job.invocation, %error, "a job given back may come twice");
                Ok(())
            }
            other => other,
        }
    }

    async fn delete(&self, held: &Held) -> Result<(), QueueError> {
        let deletes = match (held.source, &self.spent) {
            (Source::Spent, Some(spent)) => &spent.deletes,
            _ => &self.deletes,
        };
        deletes.make(held.receipt.clone()).await?;
        self.figures.finished();
        Ok(())
    }

    async fn change_visibility(&self, held: &Held, visible_in: Duration, now: Duration) -> Result<(), QueueError> {
        let visibilities = match (held.source, &self.spent) {
            (Source::Spent, Some(spent)) => &spent.visibilities,
            _ => &self.visibilities,
        };
        let left = IN_FLIGHT_MAX.saturating_sub(now.saturating_sub(held.since));
        Ok(visibilities.make((held.receipt.clone(), seconds(visible_in.min(left)))).await?)
    }

    fn number(&self, token: &LeaseToken) -> Result<u64, QueueError> {
        let (run, number) = token.0.split_once('.').ok_or(QueueError::LeaseLost)?;
        match (u64::from_str_radix(run, 16), number.parse()) {
            (Ok(run), Ok(number)) if run == self.run => Ok(number),
            _ => Err(QueueError::LeaseLost),
        }
    }

    /// The holder's last word: goes on when the holder goes away. If it can't be said the lease goes on too.
    async fn settle<F, W>(self: &Arc<Self>, token: &LeaseToken, say: F) -> Result<(), QueueError>
    where
        F: FnOnce(Arc<Self>, Held) -> W + Send + 'static,
        W: Future<Output = Result<(), QueueError>> + Send,
    {
        let number = self.number(token)?;
        let held = locked(&self.leases).take(number, self.clock.monotonic()).ok_or(QueueError::LeaseLost)?;
        let inner = self.clone();
        let said = tokio::spawn(async move {
            let said = say(inner.clone(), held.clone()).await;
            if let Err(QueueError::Store(_)) = &said {
                locked(&inner.leases).put_back(number, held);
            }
            said
        });
        said.await.map_err(|_| StoreError::Unavailable("the queue is closing".to_owned()))?
    }

    fn lease(&self, arrived: Arrived, now: Duration) -> Lease {
        let Arrived { message, receipt, received, at, source, .. } = arrived;
        // One that came before its time was no attempt.
        let early = u32::from(message.not_before.is_some());
        let attempt = message.attempts.saturating_add(received).saturating_sub(early).max(1);
        let job = message.job.clone();
        let until = at.saturating_add(self.visibility);
        let number = locked(&self.leases).add(Held { message, receipt, source, attempt, since: at, until }, now);
        let token = LeaseToken(format!("{:x}.{number}", self.run));
        Lease { token, job, attempt, valid_for: self.visibility }
    }

    /// Leases of what lies on the shelf, and whether any was turned away. In one step: a receiver that goes away either has them or not.
    fn hand_out(self: &Arc<Self>, max: usize, per_owner_max: usize) -> (Vec<Lease>, bool) {
        let (mut leases, mut over) = (Vec::new(), Vec::new());
        while leases.len() < max
            && let Some(arrived) = self.polls.take(1).pop()
        {
            let now = self.clock.monotonic();
            if let Some(wait) = self.too_early(&arrived) {
                self.hold_back(arrived, wait);
            } else if locked(&self.leases).of_owner(&arrived.message.job.owner, now) >= per_owner_max {
                over.push(arrived);
            } else {
                leases.push(self.lease(arrived, now));
            }
        }
        let turned_away = !over.is_empty();
        self.turn_away(over, "over_share", OVER_SHARE_DELAY);
        (leases, turned_away)
    }

    fn too_early(&self, arrived: &Arrived) -> Option<Duration> {
        let not_before = arrived.message.not_before?;
        let wait = not_before.since(self.clock.now());
        (arrived.received <= 1 && !wait.is_zero()).then_some(wait)
    }

    /// SQS could not keep the whole delay of a new message; of one that was received it can.
    fn hold_back(self: &Arc<Self>, arrived: Arrived, wait: Duration) {
        let inner = self.clone();
        tokio::spawn(async move {
            let wait = seconds(wait.min(IN_FLIGHT_MAX));
            if let Err(error) = inner.visibilities.make((arrived.receipt, wait)).await {
                tracing::warn!(?error, "a delayed job comes too early");
            }
        });
    }

    /// Takes what nobody came for.
    fn unclaimed(self: &Arc<Self>) -> impl Fn(Vec<Arrived>) + Clone + Send + 'static {
        let inner = self.clone();
        move |left| inner.turn_away(left, "unclaimed", Duration::ZERO)
    }

    /// Gives back messages that became no lease, without counting them as attempts.
    fn turn_away(self: &Arc<Self>, arrived: Vec<Arrived>, reason: &'static str, delay: Duration) {
        for one in arrived {
            self.metrics.returned(reason);
            let inner = self.clone();
            tokio::spawn(async move {
                let Arrived { message, receipt, received, at, source, .. } = one;
                let early = u32::from(message.not_before.is_some());
                let attempt = message.attempts.saturating_add(received).saturating_sub(early).max(1);
                let until = at.saturating_add(inner.visibility);
                let held = Held { message, receipt, source, attempt, since: at, until };
                match inner.send_anew(&held, delay).await {
                    Ok(()) | Err(QueueError::LeaseLost) => {}
                    Err(QueueError::Store(error)) => {
                        tracing::debug!(%error, "a job comes again when its lease runs out");
                    }
                }
            });
        }
    }
}

/// Whole seconds, which is all that SQS has; a part of one is one.
fn seconds(time: Duration) -> i32 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}
