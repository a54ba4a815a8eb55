//! Claims: the newest first, each to one taker, and none of a worker that went silent.

use std::time::Duration;

use faasd::domain::ids::VersionKey;
use faasd::ports::claims::{CLAIMS_MAX, FORGOTTEN_AFTER};

use super::samples::{function_id, worker_id};
use super::shared::{LocalWorld, RedisWorld, SharedWorld};

contract!(worlds: [local => LocalWorld, redis => RedisWorld], tests: [
    the_newest_is_taken_first_and_once,
    no_two_takers_get_one_claim,
    a_worker_withdraws_its_own,
    a_silent_workers_claims_are_forgotten,
    what_was_forgotten_does_not_come_back,
    the_oldest_beyond_the_bound_go,
]);

fn version() -> VersionKey {
    VersionKey { function: function_id(), number: 3 }
}

pub async fn the_newest_is_taken_first_and_once<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    let (version, other) = (version(), version());
    let (ann, bob) = (worker_id(), worker_id());
    assert_eq!(here.claims.take(version).await.unwrap(), None);
    here.claims.offer(version, ann, 2).await.unwrap();
    there.claims.offer(version, bob, 1).await.unwrap();
    here.claims.offer(other, bob, 1).await.unwrap();
    let mut taken = Vec::new();
    for node in [&here, &there, &here, &there] {
        taken.push(node.claims.take(version).await.unwrap());
    }
    assert_eq!(taken, [Some(bob), Some(ann), Some(ann), None]);
    let next = VersionKey { number: 4, ..version };
    assert_eq!(here.claims.take(next).await.unwrap(), None, "another version of the function");
    assert_eq!(here.claims.take(other).await.unwrap(), Some(bob));
}

pub async fn no_two_takers_get_one_claim<W: SharedWorld>() {
    let world = W::open().await;
    let nodes = [world.node().await, world.node().await];
    let version = version();
    let workers: Vec<_> = (0..10).map(|_| worker_id()).collect();
    for worker in &workers {
        nodes[0].claims.offer(version, *worker, 20).await.unwrap();
    }
    let mut takers = tokio::task::JoinSet::new();
    for node in nodes.iter().cycle().take(16) {
        let claims = node.claims.clone();
        takers.spawn(async move {
            let mut taken = Vec::new();
            while let Some(worker) = claims.take(version).await.unwrap() {
                taken.push(worker);
            }
            taken
        });
    }
    let taken: Vec<_> = takers.join_all().await.concat();
    for worker in workers {
        assert_eq!(taken.iter().filter(|taken| **taken == worker).count(), 20);
    }
}

pub async fn a_worker_withdraws_its_own<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (version, ann, bob) = (version(), worker_id(), worker_id());
    assert_eq!(node.claims.withdraw(version, ann, 1).await.unwrap(), 0);
    node.claims.offer(version, ann, 3).await.unwrap();
    node.claims.offer(version, bob, 2).await.unwrap();
    assert_eq!(node.claims.withdraw(version, ann, 0).await.unwrap(), 0);
    assert_eq!(node.claims.withdraw(version, ann, 1).await.unwrap(), 1);
    assert_eq!(node.claims.withdraw(version, bob, 5).await.unwrap(), 2);
    assert_eq!(node.claims.take(version).await.unwrap(), Some(ann));
    assert_eq!(node.claims.withdraw(version, ann, u32::MAX).await.unwrap(), 1);
    assert_eq!(node.claims.take(version).await.unwrap(), None);
}

async fn a_silent_workers_claims_are_forgotten<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (version, ann, bob) = (version(), worker_id(), worker_id());
    node.claims.offer(version, ann, 1).await.unwrap();
    node.claims.offer(version, bob, 2).await.unwrap();
    world.pass(FORGOTTEN_AFTER * 2 / 3).await;
    node.claims.offer(version, ann, 0).await.unwrap();
    world.pass(FORGOTTEN_AFTER * 2 / 3).await;
    assert_eq!(node.claims.withdraw(version, bob, 1).await.unwrap(), 0);
    assert_eq!(node.claims.take(version).await.unwrap(), Some(ann));
    assert_eq!(node.claims.take(version).await.unwrap(), None);
}

async fn what_was_forgotten_does_not_come_back<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (version, ann, bob) = (version(), worker_id(), worker_id());
    node.claims.offer(version, ann, 3).await.unwrap();
    world.pass(FORGOTTEN_AFTER / 2).await;
    // Somebody else keeps the list alive.
    node.claims.offer(version, bob, 1).await.unwrap();
    world.pass(FORGOTTEN_AFTER / 2 + Duration::from_secs(1)).await;
    node.claims.offer(version, ann, 1).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(node.claims.take(version).await.unwrap());
    }
    assert_eq!(taken, [Some(ann), Some(bob), None]);
}

async fn the_oldest_beyond_the_bound_go<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (version, ann, bob) = (version(), worker_id(), worker_id());
    node.claims.offer(version, ann, 10).await.unwrap();
    node.claims.offer(version, bob, CLAIMS_MAX - 1).await.unwrap();
    assert_eq!(node.claims.withdraw(version, ann, u32::MAX).await.unwrap(), 1);
    node.claims.offer(version, bob, u32::MAX).await.unwrap();
    assert_eq!(node.claims.withdraw(version, bob, u32::MAX).await.unwrap(), CLAIMS_MAX);
}
