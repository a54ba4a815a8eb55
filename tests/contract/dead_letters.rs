//! Dead letters: buried in one step, looked at, taken away once. Over the store of one node, and over SQS and DynamoDB together.

use std::collections::BTreeSet;
use std::time::Duration;

use faasd::config::Config;
use faasd::domain::ids::Owner;
use faasd::domain::job::{Backlog, DeadLetter, Job, Lease};
use faasd::ports::StoreError;

#[cfg(feature = "aws")]
use super::aws::fleet::{FastFleet, MotoFleet};
use super::embedded::EmbeddedWorld;
use super::samples::{invocation_id, job};
use super::world::World;

contract!(worlds: [
    embedded => EmbeddedWorld,
    #[cfg(feature = "aws")] fleet => FastFleet,
    #[cfg(feature = "aws")] moto => MotoFleet,
], tests: [
    a_buried_job_is_a_letter_and_no_job,
    letters_are_listed_newest_first_and_by_owner,
    pages_have_neither_gaps_nor_repeats_while_letters_come,
    one_of_many_removals_takes_the_letter,
    the_oldest_letters_make_room,
    letters_age_out,
    a_foreign_cursor_is_refused,
]);

async fn one<W: World>(world: &W) -> Lease {
    world.queue().receive(1, usize::MAX, Duration::from_secs(5)).await.unwrap().remove(0)
}

async fn bury<W: World>(world: &W, job: Job, reason: &str) {
    world.queue().send(job, Duration::ZERO).await.unwrap();
    let lease = one(world).await;
    world.queue().bury(&lease.token, reason).await.unwrap();
}

async fn comes_to<W: World>(world: &W, wanted: Backlog) {
    let since = std::time::Instant::now();
    loop {
        let backlog = world.queue().backlog().await.unwrap();
        if backlog == wanted {
            return;
        }
        assert!(since.elapsed() < W::FIGURES_LAG, "{backlog:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all<W: World>(world: &W, owner: Option<&str>) -> Vec<DeadLetter> {
    let page = world.dead_letters().list(owner.map(Owner::new).as_ref(), 100, None).await.unwrap();
    assert_eq!(page.next_cursor, None);
    page.items
}

async fn a_buried_job_is_a_letter_and_no_job<W: World>() {
    let mut world = W::open(Config::default()).await;
    let job = job("ann");
    let queue = world.queue();
    queue.send(job.clone(), Duration::ZERO).await.unwrap();
    let lease = one(&world).await;
    queue.give_back(&lease.token, Duration::ZERO, true).await.unwrap();
    let lease = one(&world).await;
    let died_at = world.now();
    queue.bury(&lease.token, "it failed twice").await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.queue().receive(1, usize::MAX, Duration::ZERO).await.unwrap(), []);
        comes_to(&world, Backlog { dead: 1, ..Backlog::default() }).await;
        let letter = world.dead_letters().get(job.invocation).await.unwrap().unwrap();
        assert_eq!((&letter.job, letter.attempts, letter.reason.as_str()), (&job, 2, "it failed twice"));
        assert!(letter.died_at >= died_at && letter.died_at <= world.now());
        assert_eq!(all(&world, None).await, [letter]);
        assert_eq!(world.dead_letters().get(invocation_id()).await.unwrap(), None);
        world = world.killed().await;
    }
}

async fn letters_are_listed_newest_first_and_by_owner<W: World>() {
    let world = W::open(Config::default()).await;
    let jobs: Vec<Job> = ["ann", "bob", "ann", "ann"].map(job).to_vec();
    for job in &jobs {
        bury(&world, job.clone(), "x").await;
    }
    let ids = |letters: Vec<DeadLetter>| letters.iter().map(|one| one.job.invocation).collect::<Vec<_>>();
    let wanted = |which: &[usize]| which.iter().map(|n| jobs[*n].invocation).collect::<Vec<_>>();
    assert_eq!(ids(all(&world, None).await), wanted(&[3, 2, 1, 0]));
    assert_eq!(ids(all(&world, Some("ann")).await), wanted(&[3, 2, 0]));
    assert_eq!(ids(all(&world, Some("eve")).await), wanted(&[]));
}

async fn pages_have_neither_gaps_nor_repeats_while_letters_come<W: World>() {
    let world = W::open(Config::default()).await;
    let jobs: Vec<Job> = (0..20).map(|_| job("ann")).collect();
    for job in &jobs {
        bury(&world, job.clone(), "x").await;
    }
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = world.dead_letters().list(None, 3, cursor.as_deref()).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|letter| letter.job.invocation));
        bury(&world, job("ann"), "later").await;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, jobs.iter().rev().map(|job| job.invocation).collect::<Vec<_>>());
}

async fn one_of_many_removals_takes_the_letter<W: World>() {
    let world = W::open(Config::default()).await;
    let job = job("ann");
    bury(&world, job.clone(), "x").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let letters = world.dead_letters();
        tasks.spawn(async move { letters.remove(job.invocation).await.unwrap() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|removed| *removed).count(), 1);
    let world = world.killed().await;
    assert_eq!(all(&world, None).await, []);
}

async fn the_oldest_letters_make_room<W: World>() {
    let mut config = Config::default();
    config.queue.dead_letters_max = 3;
    let mut world = W::open(config).await;
    let jobs: Vec<Job> = (0..8).map(|_| job("ann")).collect();
    for (n, job) in jobs.iter().enumerate() {
        bury(&world, job.clone(), "x").await;
        let kept: BTreeSet<_> = all(&world, None).await.iter().map(|letter| letter.job.invocation).collect();
        assert_eq!(kept, jobs[(n + 1).saturating_sub(3)..=n].iter().map(|job| job.invocation).collect());
        if n == 4 {
            world = world.killed().await;
        }
    }
}

async fn letters_age_out<W: World>() {
    let mut config = Config::default();
    config.retention.logs_s = 100;
    let world = W::open(config).await;
    let (old, young) = (job("ann"), job("ann"));
    bury(&world, old.clone(), "x").await;
    world.pass(Duration::from_secs(60)).await;
    bury(&world, young.clone(), "x").await;
    world.pass(Duration::from_secs(60)).await;
    world.sweep().await;
    assert_eq!(world.dead_letters().get(old.invocation).await.unwrap(), None);
    assert!(world.dead_letters().get(young.invocation).await.unwrap().is_some());
}

async fn a_foreign_cursor_is_refused<W: World>() {
    let world = W::open(Config::default()).await;
    let refused = world.dead_letters().list(None, 3, Some("nonsense")).await;
    assert!(matches!(refused, Err(StoreError::InvalidCursor)));
}
