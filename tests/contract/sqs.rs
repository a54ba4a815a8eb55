//! The queue on SQS as a world, over the fast SQS and over the emulator; and what is promised of it alone, or kept otherwise than by
//! a queue of one process.
//!
//! Left out of the common suite, with what holds instead:
//!
//! - `sending_again_changes_nothing`: a standard queue knows no duplicates. Records are fenced by attempt; a FIFO queue takes one
//!   (`a_fifo_queue_takes_a_job_once`).
//! - `owners_take_turns`: SQS has one order for all (`jobs_of_an_owner_at_its_most_stay_and_hold_up_nobody` is held).
//! - `a_lease_does_not_outlive_its_process`, `attempts_outlive_a_kill`: SQS does not see a process end
//!   (`a_lease_outlives_its_process_by_its_time`).
//! - `a_full_queue_refuses`: it sends a job twice (`more_than_the_most_is_refused`).
//! - `the_backlog_is_counted`: what comes back after a delay counts as leased, and letters are counted elsewhere
//!   (`the_figures_are_sqs_s`).
//!
//! Over the emulator time really passes, so what waits longer than some seconds is left out there: `a_delayed_job_waits_for_its_time`,
//! `a_delay_outlives_a_kill`, `a_lease_that_ran_out_is_lost_and_the_job_comes_again`, `an_extended_lease_lasts`,
//! `an_acknowledged_job_is_gone`, `a_job_given_back_comes_again_after_its_delay`; and `each_job_goes_to_one_of_many_receivers`, of which
//! it would answer a few hundred requests a minute.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use faasd::adapters::aws::sqs::metrics::Metrics;
use faasd::adapters::aws::sqs::{Letters, Queue};
use faasd::config::Config;
use faasd::domain::ids::{Digest, InvocationId};
use faasd::domain::job::{DeadLetter, Job, Payload};
use faasd::domain::time::Timestamp;
use faasd::ports::StoreError;
use faasd::ports::clock::Clock;
use faasd::ports::queue::{JobQueue, QueueError};

use super::clock::ShiftedClock;
use super::embedded::EmbeddedWorld;
use super::samples::job;
use super::world::World;
use crate::support::faults::Faults;
use crate::support::moto::{Moto, sdk};
use crate::support::sqs::FastSqs;

const NOW: Duration = Duration::ZERO;
const VISIBILITY: Duration = Duration::from_secs(30);

/// Letters of one process, for what only a queue promises; `dead_letters` runs over the real ones.
#[derive(Default)]
struct LettersHere(Mutex<HashMap<InvocationId, DeadLetter>>);

#[async_trait]
impl Letters for LettersHere {
    async fn write(&self, letter: DeadLetter) -> Result<(), StoreError> {
        self.0.lock().unwrap().insert(letter.job.invocation, letter);
        Ok(())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

/// The queue of a fleet; all else is a single node's.
pub struct FastSqsWorld {
    server: Arc<FastSqs>,
    config: Config,
    clock: Arc<ShiftedClock>,
    letters: Arc<LettersHere>,
    others: EmbeddedWorld,
    queue: Arc<dyn JobQueue>,
}

async fn open_queue(
    endpoint: &str,
    config: &Config,
    letters: Arc<LettersHere>,
    others: &EmbeddedWorld,
    clock: Arc<dyn Clock>,
) -> Arc<dyn JobQueue> {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Arc::new(Queue::open(&sdk(endpoint).await, config, letters, others.artifacts(), clock, metrics).unwrap())
}

impl FastSqsWorld {
    async fn named(name: &str, mut config: Config) -> Self {
        let server = Arc::new(FastSqs::start().await);
        let spent = format!("dead-{name}");
        config.aws.dead_letter_queue_url = server.create(&spent, &[]);
        let policy = format!(
            "{{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:000000000000:{spent}\",\"maxReceiveCount\":\"5\"}}"
        );
        config.aws.queue_url = server.create(name, &[("RedrivePolicy", &policy)]);
        let (clock, letters) = (ShiftedClock::new(), Arc::new(LettersHere::default()));
        let others = EmbeddedWorld::open(Config::default()).await;
        let queue = open_queue(&server.endpoint(), &config, letters.clone(), &others, clock.clone()).await;
        Self { server, config, clock, letters, others, queue }
    }
}

impl World for FastSqsWorld {
    async fn open(config: Config) -> Self {
        Self::named("jobs", config).await
    }

    async fn killed(self) -> Self {
        let queue =
            open_queue(&self.server.endpoint(), &self.config, self.letters.clone(), &self.others, self.clock.clone())
                .await;
        Self { queue, ..self }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        // The clock first: what counts as held here is held there.
        self.clock.pass(time);
        self.server.pass(time);
    }

    async fn sweep(&self) {}

    fn damage(&self, artifact: Digest) {
        self.others.damage(artifact);
    }

    fn rest(&self) -> &EmbeddedWorld {
        &self.others
    }

    fn queue(&self) -> Arc<dyn JobQueue> {
        self.queue.clone()
    }
}

/// The same over the emulator, with a queue of its own in it.
pub struct MotoSqsWorld {
    config: Config,
    clock: Arc<ShiftedClock>,
    letters: Arc<LettersHere>,
    others: EmbeddedWorld,
    queue: Arc<dyn JobQueue>,
}

impl World for MotoSqsWorld {
    async fn open(mut config: Config) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = format!("jobs-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let moto = Moto::parallel();
        let client = aws_sdk_sqs::Client::new(&moto.sdk().await);
        let made = client.create_queue().queue_name(name).send().await.unwrap();
        config.aws.queue_url = made.queue_url().unwrap().to_owned();
        let (clock, letters) = (ShiftedClock::new(), Arc::new(LettersHere::default()));
        let others = EmbeddedWorld::open(Config::default()).await;
        let queue = open_queue(&moto.endpoint, &config, letters.clone(), &others, clock.clone()).await;
        Self { config, clock, letters, others, queue }
    }

    async fn killed(self) -> Self {
        let endpoint = &Moto::parallel().endpoint;
        let queue = open_queue(endpoint, &self.config, self.letters.clone(), &self.others, self.clock.clone()).await;
        Self { queue, ..self }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn sweep(&self) {}

    fn damage(&self, artifact: Digest) {
        self.others.damage(artifact);
    }

    fn rest(&self) -> &EmbeddedWorld {
        &self.others
    }

    fn queue(&self) -> Arc<dyn JobQueue> {
        self.queue.clone()
    }
}

async fn one(queue: &dyn JobQueue) -> faasd::domain::job::Lease {
    let mut leases = queue.receive(1, usize::MAX, Duration::from_secs(5)).await.unwrap();
    assert_eq!(leases.len(), 1);
    leases.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_its_process_by_its_time() {
    let world = FastSqsWorld::open(Config::default()).await;
    world.queue().send(job("ann"), NOW).await.unwrap();
    let lease = one(&*world.queue()).await;
    let world = world.killed().await;
    assert_eq!(world.queue().receive(1, usize::MAX, NOW).await.unwrap(), []);
    let foreign = world.queue().acknowledge(&lease.token).await;
    assert!(matches!(foreign, Err(QueueError::LeaseLost)), "{foreign:?}");
    world.pass(VISIBILITY + Duration::from_secs(1)).await;
    assert_eq!(one(&*world.queue()).await.attempt, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_most_is_refused() {
    let mut config = Config::default();
    config.queue.jobs_max = 3;
    let world = FastSqsWorld::open(config).await;
    let queue = world.queue();
    for delay in [0, 0, 9] {
        queue.send(job("ann"), Duration::from_secs(delay)).await.unwrap();
    }
    let refused = queue.send(job("ann"), NOW).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    queue.acknowledge(&one(&*queue).await.token).await.unwrap();
    queue.send(job("ann"), NOW).await.unwrap();
    // By SQS's own figures as well, a second later.
    world.pass(Duration::from_secs(2)).await;
    let refused = world.killed().await.queue().send(job("ann"), NOW).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_are_sqs_s() {
    let world = FastSqsWorld::open(Config::default()).await;
    let queue = world.queue();
    for delay in [0, 0, 0, 60, 60] {
        queue.send(job("ann"), Duration::from_secs(delay)).await.unwrap();
    }
    let lease = one(&*queue).await;
    world.pass(Duration::from_secs(2)).await;
    let backlog = queue.backlog().await.unwrap();
    assert_eq!((backlog.ready, backlog.delayed, backlog.leased, backlog.dead), (2, 2, 1, 0));
    world.pass(Duration::from_secs(10)).await;
    let older = queue.backlog().await.unwrap();
    assert!(older.oldest_ms >= 10_000, "they wait and are seen to: {older:?}");
    queue.bury(&lease.token, "given up").await.unwrap();
    world.pass(Duration::from_secs(2)).await;
    let backlog = queue.backlog().await.unwrap();
    assert_eq!((backlog.leased, backlog.dead), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_queue_takes_a_job_once() {
    let world = FastSqsWorld::named("jobs.fifo", Config::default()).await;
    let (queue, job) = (world.queue(), job("ann"));
    for _ in 0..3 {
        queue.send(job.clone(), NOW).await.unwrap();
    }
    let lease = one(&*queue).await;
    assert_eq!(queue.receive(10, usize::MAX, NOW).await.unwrap(), []);
    // What is sent anew is another message, or the job would be lost.
    queue.give_back(&lease.token, Duration::from_secs(5), false).await.unwrap();
    assert_eq!(queue.receive(10, usize::MAX, NOW).await.unwrap(), []);
    // Held back behind the receiver.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.pass(Duration::from_secs(6)).await;
    let again = one(&*queue).await;
    assert_eq!((&again.job, again.attempt), (&job, 1));
    queue.acknowledge(&again.token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_queue_runs_the_jobs_of_one_function_in_order() {
    let world = FastSqsWorld::named("jobs.fifo", Config::default()).await;
    let queue = world.queue();
    let first = job("ann");
    let second = Job { version: first.version, ..job("ann") };
    let other = job("ann");
    for job in [&first, &second, &other] {
        queue.send(job.clone(), NOW).await.unwrap();
    }
    let lease = one(&*queue).await;
    assert_eq!(lease.job, first);
    let next = one(&*queue).await;
    assert_eq!(next.job, other, "the second of a function waits for its first");
    queue.acknowledge(&lease.token).await.unwrap();
    assert_eq!(one(&*queue).await.job, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_longer_than_sqs_keeps_is_kept() {
    let world = FastSqsWorld::open(Config::default()).await;
    let queue = world.queue();
    queue.send(job("ann"), Duration::from_secs(3600)).await.unwrap();
    world.pass(Duration::from_secs(901)).await;
    assert_eq!(queue.receive(1, usize::MAX, NOW).await.unwrap(), []);
    // Held back behind the receiver.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.pass(Duration::from_secs(2600)).await;
    assert_eq!(queue.receive(1, usize::MAX, NOW).await.unwrap(), []);
    world.pass(Duration::from_secs(101)).await;
    assert_eq!(one(&*queue).await.attempt, 1, "what came too early was no attempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_came_to_an_end_with_is_put_aside_to_be_buried() {
    let world = FastSqsWorld::open(Config::default()).await;
    let (queue, poison) = (world.queue(), job("ann"));
    queue.send(poison.clone(), NOW).await.unwrap();
    for attempt in 1..=5 {
        assert_eq!(one(&*queue).await.attempt, attempt);
        assert_eq!(queue.given_up(10).await.unwrap(), []);
        world.pass(VISIBILITY + Duration::from_secs(1)).await;
    }
    assert_eq!(queue.receive(1, usize::MAX, NOW).await.unwrap(), []);
    let mut leases = queue.given_up(10).await.unwrap();
    assert_eq!(leases.len(), 1);
    let lease = leases.remove(0);
    assert_eq!((&lease.job, lease.attempt), (&poison, 6));
    queue.bury(&lease.token, "no worker survived it").await.unwrap();
    assert_eq!(world.letters.0.lock().unwrap()[&poison.invocation].job, poison);
    assert_eq!(world.server.counts("dead-jobs"), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sqs_takes_no_text_for_arrives_as_it_was() {
    let world = FastSqsWorld::open(Config::default()).await;
    let queue = world.queue();
    // Not UTF-8; not XML; and the largest that base64 makes too large for a message.
    for bytes in [vec![0xff, 0, 1], "\u{ffff}\u{0}".into(), vec![0xfe; 900_000]] {
        let job = Job { payload: Payload::Inline(Bytes::from(bytes)), ..job("ann") };
        queue.send(job.clone(), NOW).await.unwrap();
        let lease = one(&*queue).await;
        assert!(lease.job == job, "another payload came back");
        queue.acknowledge(&lease.token).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_jobs_share_no_batch_that_is_too_large() {
    let world = FastSqsWorld::open(Config::default()).await;
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let queue = world.queue();
        let payload = Payload::Inline(Bytes::from(vec![b'1'; 400_000]));
        sends.spawn(async move { queue.send(Job { payload, ..job("ann") }, NOW).await.unwrap() });
    }
    sends.join_all().await;
    assert_eq!(world.server.counts("jobs"), [20, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_come_together_share_requests() {
    let mut config = Config::default();
    config.aws.linger_ms = 20;
    let world = FastSqsWorld::open(config).await;
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let queue = world.queue();
        sends.spawn(async move { queue.send(job("ann"), NOW).await.unwrap() });
    }
    sends.join_all().await;
    let queue = world.queue();
    let leases = queue.receive(100, usize::MAX, Duration::from_secs(5)).await.unwrap();
    let acknowledged = leases.iter().map(|lease| queue.acknowledge(&lease.token));
    for done in futures_util::future::join_all(acknowledged).await {
        done.unwrap();
    }
    let requests = world.server.requests();
    assert!(requests["SendMessageBatch"] <= 15, "{requests:?}");
    assert!(requests["DeleteMessageBatch"] <= leases.len() as u64 / 10 + 5, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_taken_than_there_are_places() {
    let world = FastSqsWorld::open(Config::default()).await;
    let queue = world.queue();
    for _ in 0..50 {
        queue.send(job("ann"), NOW).await.unwrap();
    }
    let leases = queue.receive(3, usize::MAX, Duration::from_secs(5)).await.unwrap();
    assert!((1..=3).contains(&leases.len()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.server.counts("jobs"), [47, 3, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_for_a_receiver_that_went_comes_again_uncounted() {
    let world = FastSqsWorld::open(Config::default()).await;
    let queue = world.queue();
    let receive = tokio::spawn({
        let queue = queue.clone();
        async move { queue.receive(1, usize::MAX, Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    receive.abort();
    queue.send(job("ann"), NOW).await.unwrap();
    // On the shelf for a second, then sent anew; no receiver is there meanwhile.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(one(&*queue).await.attempt, 1);
    assert!(world.server.requests()["SendMessageBatch"] >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_requests_fail_and_stall() {
    let mut config = Config::default();
    config.aws.operation_timeout_ms = 1000;
    let world = FastSqsWorld::open(config).await;
    world.server.faults(Faults {
        seed: 7,
        failing: 0.05,
        throttled: 0.02,
        stalled: 0.03,
        stall_ms: 2000,
        ..Faults::default()
    });
    let queue = world.queue();
    let mut sent = std::collections::BTreeSet::new();
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let queue = queue.clone();
        sends.spawn(async move {
            let job = job("ann");
            queue.send(job.clone(), NOW).await.map(|()| job.invocation)
        });
    }
    sent.extend(sends.join_all().await.into_iter().flatten());
    assert!(sent.len() > 300, "only {} of 400 were sent", sent.len());
    let mut done = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    while !sent.is_subset(&done) {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of {} came", done.len(), sent.len());
        let leases = match queue.receive(64, usize::MAX, Duration::from_secs(1)).await {
            Ok(leases) => leases,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                continue;
            }
        };
        if leases.is_empty() {
            world.pass(VISIBILITY).await;
        }
        for lease in leases {
            // An acknowledgement that fails leaves the job to come again.
            let _ = queue.acknowledge(&lease.token).await;
            done.insert(lease.job.invocation);
        }
    }
}
