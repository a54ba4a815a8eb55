//! The job queue: what was sent is delivered until it is done, to one holder at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use faasd::config::Config;
use faasd::domain::ids::Digest;
use faasd::domain::job::{Backlog, Job, Lease, LeaseToken, Payload};
use faasd::ports::StoreError;
use faasd::ports::queue::{JobQueue, QueueError};

use super::embedded::EmbeddedWorld;
use super::samples::job;
#[cfg(feature = "aws")]
use super::sqs::{FastSqsWorld, MotoSqsWorld};
use super::world::World;

contract!(worlds: [embedded => EmbeddedWorld], tests: [
    a_job_arrives_as_it_was_sent,
    a_sent_job_survives_a_kill,
    sending_again_changes_nothing,
    an_empty_queue_answers_when_the_wait_is_over,
    a_waiting_receiver_gets_what_is_sent_meanwhile,
    jobs_come_oldest_ready_first,
    a_delayed_job_waits_for_its_time,
    a_delay_outlives_a_kill,
    each_job_goes_to_one_of_many_receivers,
    a_lease_that_ran_out_is_lost_and_the_job_comes_again,
    an_extended_lease_lasts,
    an_acknowledged_job_is_gone,
    a_job_given_back_comes_again_after_its_delay,
    an_uncounted_lease_is_no_attempt,
    attempts_outlive_a_kill,
    a_lease_does_not_outlive_its_process,
    a_full_queue_refuses,
    the_backlog_is_counted,
    a_foreign_token_is_lost,
    a_receiver_that_goes_away_takes_nothing_along,
    owners_take_turns,
    jobs_of_an_owner_at_its_most_stay_and_hold_up_nobody,
]);

// Why some are not here stands in `sqs.rs`.
#[cfg(feature = "aws")]
contract!(worlds: [sqs => FastSqsWorld], tests: [
    a_job_arrives_as_it_was_sent,
    a_sent_job_survives_a_kill,
    an_empty_queue_answers_when_the_wait_is_over,
    a_waiting_receiver_gets_what_is_sent_meanwhile,
    jobs_come_oldest_ready_first,
    a_delayed_job_waits_for_its_time,
    a_delay_outlives_a_kill,
    each_job_goes_to_one_of_many_receivers,
    a_lease_that_ran_out_is_lost_and_the_job_comes_again,
    an_extended_lease_lasts,
    an_acknowledged_job_is_gone,
    a_job_given_back_comes_again_after_its_delay,
    an_uncounted_lease_is_no_attempt,
    a_foreign_token_is_lost,
    a_receiver_that_goes_away_takes_nothing_along,
    jobs_of_an_owner_at_its_most_stay_and_hold_up_nobody,
]);

#[cfg(feature = "aws")]
contract!(worlds: [moto => MotoSqsWorld], tests: [
    a_job_arrives_as_it_was_sent,
    an_empty_queue_answers_when_the_wait_is_over,
    a_waiting_receiver_gets_what_is_sent_meanwhile,
    an_uncounted_lease_is_no_attempt,
    a_foreign_token_is_lost,
    jobs_of_an_owner_at_its_most_stay_and_hold_up_nobody,
]);

const NOW: Duration = Duration::ZERO;
const VISIBILITY: Duration = Duration::from_secs(30);

async fn one(queue: &dyn JobQueue) -> Lease {
    let mut leases = queue.receive(1, usize::MAX, Duration::from_secs(5)).await.unwrap();
    assert_eq!(leases.len(), 1);
    leases.remove(0)
}

async fn nothing(queue: &dyn JobQueue) {
    assert_eq!(queue.receive(10, usize::MAX, NOW).await.unwrap(), []);
}

async fn is_lost(queue: &dyn JobQueue, token: &LeaseToken) {
    let lost = |answer| assert!(matches!(answer, Err(QueueError::LeaseLost)), "{answer:?}");
    lost(queue.extend(token, VISIBILITY).await);
    lost(queue.acknowledge(token).await);
    lost(queue.give_back(token, NOW, true).await);
    lost(queue.bury(token, "no").await);
}

async fn a_job_arrives_as_it_was_sent<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    let large = Payload::Inline(Bytes::from(vec![b'1'; 1 << 20]));
    let mut stored = Job { payload: Payload::Stored(Digest([7; 32])), ..job("bob") };
    stored.model_id = Some("small".to_owned());
    for job in [job("ann"), Job { payload: large, ..job("ann") }, stored] {
        queue.send(job.clone(), NOW).await.unwrap();
        let lease = one(&*queue).await;
        assert_eq!((lease.job, lease.attempt, lease.valid_for), (job, 1, VISIBILITY));
    }
}

async fn a_sent_job_survives_a_kill<W: World>() {
    let world = W::open(Config::default()).await;
    let jobs: Vec<Job> = (0..50).map(|_| job("ann")).collect();
    for job in &jobs {
        world.queue().send(job.clone(), NOW).await.unwrap();
    }
    let world = world.killed().await;
    let leases = world.queue().receive(100, usize::MAX, NOW).await.unwrap();
    assert_eq!(leases.into_iter().map(|lease| lease.job).collect::<Vec<_>>(), jobs);
}

async fn sending_again_changes_nothing<W: World>() {
    let world = W::open(Config::default()).await;
    let (queue, job) = (world.queue(), job("ann"));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (queue, job) = (world.queue(), job.clone());
        tasks.spawn(async move { queue.send(job, NOW).await.unwrap() });
    }
    tasks.join_all().await;
    let lease = one(&*queue).await;
    queue.send(job.clone(), NOW).await.unwrap();
    nothing(&*queue).await;
    queue.acknowledge(&lease.token).await.unwrap();
    nothing(&*queue).await;
}

async fn an_empty_queue_answers_when_the_wait_is_over<W: World>() {
    let world = W::open(Config::default()).await;
    nothing(&*world.queue()).await;
    let began = Instant::now();
    assert_eq!(world.queue().receive(10, usize::MAX, Duration::from_millis(100)).await.unwrap(), []);
    assert!(began.elapsed() >= Duration::from_millis(100));
}

async fn a_waiting_receiver_gets_what_is_sent_meanwhile<W: World>() {
    let world = W::open(Config::default()).await;
    let mut receivers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let queue = world.queue();
        receivers.spawn(async move { queue.receive(1, usize::MAX, Duration::from_secs(20)).await.unwrap().remove(0) });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    for delay in [NOW, NOW, Duration::from_millis(100)] {
        world.queue().send(job("ann"), delay).await.unwrap();
    }
    assert_eq!(receivers.join_all().await.len(), 3);
    assert!(began.elapsed() < Duration::from_secs(18));
}

async fn jobs_come_oldest_ready_first<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    let jobs: Vec<Job> = (0..10).map(|_| job("ann")).collect();
    for job in &jobs {
        queue.send(job.clone(), NOW).await.unwrap();
    }
    let first = queue.receive(4, usize::MAX, NOW).await.unwrap();
    let rest = queue.receive(100, usize::MAX, NOW).await.unwrap();
    assert_eq!((first.len(), rest.len()), (4, 6));
    assert_eq!(first.into_iter().chain(rest).map(|lease| lease.job).collect::<Vec<_>>(), jobs);
}

async fn owners_take_turns<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    let crowd: Vec<Job> = (0..20).map(|_| job("crowd")).collect();
    for job in &crowd {
        queue.send(job.clone(), NOW).await.unwrap();
    }
    let single = job("single");
    queue.send(single.clone(), NOW).await.unwrap();
    let first = queue.receive(3, usize::MAX, NOW).await.unwrap();
    let got: Vec<_> = first.into_iter().map(|lease| lease.job).collect();
    assert_eq!(got, [crowd[0].clone(), single, crowd[1].clone()]);
    assert_eq!(queue.receive(100, usize::MAX, NOW).await.unwrap().len(), 18);
}

async fn jobs_of_an_owner_at_its_most_stay_and_hold_up_nobody<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    for owner in ["crowd", "crowd", "crowd", "single"] {
        queue.send(job(owner), NOW).await.unwrap();
    }
    let leases = queue.receive(10, 1, NOW).await.unwrap();
    assert_eq!(leases.iter().map(|lease| &*lease.job.owner.0).collect::<Vec<_>>(), ["crowd", "single"]);
    assert_eq!(queue.receive(10, 1, NOW).await.unwrap(), []);
    let waiting = tokio::spawn({
        let queue = world.queue();
        async move { queue.receive(10, 1, Duration::from_secs(10)).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    queue.acknowledge(&leases[0].token).await.unwrap();
    let next = waiting.await.unwrap();
    assert_eq!((next.len(), next[0].attempt), (1, 1), "told when one of its owner's is over");
}

async fn a_delayed_job_waits_for_its_time<W: World>() {
    let world = W::open(Config::default()).await;
    let (queue, late) = (world.queue(), job("ann"));
    queue.send(late.clone(), Duration::from_secs(60)).await.unwrap();
    nothing(&*queue).await;
    world.pass(Duration::from_secs(59)).await;
    nothing(&*queue).await;
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(one(&*queue).await.job, late);
    // A receiver that is already waiting wakes by itself.
    let soon = job("ann");
    queue.send(soon.clone(), Duration::from_millis(100)).await.unwrap();
    assert_eq!(one(&*queue).await.job, soon);
}

async fn a_delay_outlives_a_kill<W: World>() {
    let world = W::open(Config::default()).await;
    world.queue().send(job("ann"), Duration::from_secs(60)).await.unwrap();
    let world = world.killed().await;
    nothing(&*world.queue()).await;
    world.pass(Duration::from_secs(61)).await;
    one(&*world.queue()).await;
}

async fn each_job_goes_to_one_of_many_receivers<W: World>() {
    let world = W::open(Config::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let queue = world.queue();
        tasks.spawn(async move {
            for _ in 0..5 {
                queue.send(job("ann"), NOW).await.unwrap();
            }
            let mut mine = Vec::new();
            while mine.len() < 5 {
                for lease in queue.receive(2, usize::MAX, Duration::from_secs(10)).await.unwrap() {
                    mine.push(lease.job.invocation);
                    queue.acknowledge(&lease.token).await.unwrap();
                }
                if mine.len() >= 4 {
                    break;
                }
            }
            mine
        });
    }
    let mut taken: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    for lease in world.queue().receive(500, usize::MAX, NOW).await.unwrap() {
        taken.push(lease.job.invocation);
    }
    assert_eq!(taken.len(), 500);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 500);
}

async fn a_lease_that_ran_out_is_lost_and_the_job_comes_again<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    queue.send(job("ann"), NOW).await.unwrap();
    let first = one(&*queue).await;
    nothing(&*queue).await;
    world.pass(VISIBILITY + Duration::from_secs(1)).await;
    is_lost(&*queue, &first.token).await;
    let second = one(&*queue).await;
    assert_eq!((second.attempt, &second.job), (2, &first.job));
    assert_ne!(second.token, first.token);
    is_lost(&*queue, &first.token).await;
    queue.acknowledge(&second.token).await.unwrap();
}

async fn an_extended_lease_lasts<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    queue.send(job("ann"), NOW).await.unwrap();
    let lease = one(&*queue).await;
    for _ in 0..5 {
        world.pass(VISIBILITY - Duration::from_secs(5)).await;
        queue.extend(&lease.token, VISIBILITY).await.unwrap();
        nothing(&*queue).await;
    }
    // It counts from the extension, not from the end before it.
    queue.extend(&lease.token, Duration::from_secs(5)).await.unwrap();
    world.pass(Duration::from_secs(6)).await;
    assert_eq!(one(&*queue).await.attempt, 2);
}

async fn an_acknowledged_job_is_gone<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    queue.send(job("ann"), NOW).await.unwrap();
    let lease = one(&*queue).await;
    queue.acknowledge(&lease.token).await.unwrap();
    is_lost(&*queue, &lease.token).await;
    world.pass(VISIBILITY * 2).await;
    nothing(&*queue).await;
    let world = world.killed().await;
    nothing(&*world.queue()).await;
}

async fn a_job_given_back_comes_again_after_its_delay<W: World>() {
    let mut world = W::open(Config::default()).await;
    world.queue().send(job("ann"), NOW).await.unwrap();
    for attempt in 1..=3 {
        let queue = world.queue();
        let lease = one(&*queue).await;
        assert_eq!(lease.attempt, attempt);
        queue.give_back(&lease.token, Duration::from_secs(10), true).await.unwrap();
        is_lost(&*queue, &lease.token).await;
        nothing(&*queue).await;
        world = world.killed().await;
        nothing(&*world.queue()).await;
        world.pass(Duration::from_secs(11)).await;
    }
}

async fn an_uncounted_lease_is_no_attempt<W: World>() {
    let mut world = W::open(Config::default()).await;
    world.queue().send(job("ann"), NOW).await.unwrap();
    for _ in 0..3 {
        let lease = one(&*world.queue()).await;
        assert_eq!(lease.attempt, 1);
        world.queue().give_back(&lease.token, NOW, false).await.unwrap();
        world = world.killed().await;
    }
}

async fn attempts_outlive_a_kill<W: World>() {
    let mut world = W::open(Config::default()).await;
    world.queue().send(job("ann"), NOW).await.unwrap();
    for attempt in 1..=4 {
        assert_eq!(one(&*world.queue()).await.attempt, attempt);
        // Soon, it says: a change that was asked for later stands for "soon" here.
        world.queue().send(job("bob"), Duration::from_secs(1000)).await.unwrap();
        world = world.killed().await;
    }
}

async fn a_lease_does_not_outlive_its_process<W: World>() {
    let world = W::open(Config::default()).await;
    world.queue().send(job("ann"), NOW).await.unwrap();
    let lease = one(&*world.queue()).await;
    let world = world.killed().await;
    one(&*world.queue()).await;
    is_lost(&*world.queue(), &lease.token).await;
}

async fn a_full_queue_refuses<W: World>() {
    let mut config = Config::default();
    config.queue.jobs_max = 3;
    let world = W::open(config).await;
    let queue = world.queue();
    let first = job("ann");
    queue.send(first.clone(), NOW).await.unwrap();
    queue.send(job("ann"), NOW).await.unwrap();
    queue.send(job("ann"), Duration::from_secs(9)).await.unwrap();
    let refused = queue.send(job("ann"), NOW).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    // What is queued already is no news.
    queue.send(first, NOW).await.unwrap();
    let lease = one(&*queue).await;
    queue.acknowledge(&lease.token).await.unwrap();
    queue.send(job("ann"), NOW).await.unwrap();
}

async fn the_backlog_is_counted<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    for delay in [0, 0, 0, 60, 60] {
        queue.send(job("ann"), Duration::from_secs(delay)).await.unwrap();
    }
    let lease = one(&*queue).await;
    let backlog = Backlog { ready: 2, delayed: 2, leased: 1, ..Backlog::default() };
    assert_eq!(Backlog { oldest_ms: 0, ..queue.backlog().await.unwrap() }, backlog);
    queue.give_back(&lease.token, Duration::from_secs(5), true).await.unwrap();
    let backlog = Backlog { ready: 2, delayed: 3, leased: 0, ..Backlog::default() };
    assert_eq!(Backlog { oldest_ms: 0, ..queue.backlog().await.unwrap() }, backlog);
    world.pass(Duration::from_secs(61)).await;
    let waiting = queue.backlog().await.unwrap();
    assert_eq!((waiting.ready, waiting.delayed, waiting.leased), (5, 0, 0));
    assert!(waiting.oldest_ms >= 61_000, "the oldest was ready from the start: {waiting:?}");
    for lease in queue.receive(10, usize::MAX, NOW).await.unwrap() {
        queue.acknowledge(&lease.token).await.unwrap();
    }
    assert_eq!(queue.backlog().await.unwrap(), Backlog::default());
    queue.send(job("ann"), NOW).await.unwrap();
    queue.bury(&one(&*queue).await.token, "given up").await.unwrap();
    assert_eq!(queue.backlog().await.unwrap(), Backlog { dead: 1, ..Backlog::default() });
}

async fn a_foreign_token_is_lost<W: World>() {
    let world = W::open(Config::default()).await;
    for token in ["", "nonsense", "a.b.c", "00000000-0000-0000-0000-000000000000.0.0"] {
        is_lost(&*world.queue(), &LeaseToken(token.to_owned())).await;
    }
}

async fn a_receiver_that_goes_away_takes_nothing_along<W: World>() {
    let world = W::open(Config::default()).await;
    let queue = world.queue();
    for _ in 0..20 {
        let waiting =
            tokio::time::timeout(Duration::from_millis(2), queue.receive(1, usize::MAX, Duration::from_secs(10)));
        assert!(waiting.await.is_err());
    }
    queue.send(job("ann"), NOW).await.unwrap();
    one(&*queue).await;
}
