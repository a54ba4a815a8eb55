//! Locks: one holder at a time, and fences that only grow.

use std::time::Duration;

#[cfg(feature = "aws")]
use super::shared::ItemWorld;
use super::shared::{LocalWorld, RedisWorld, SharedWorld};

contract!(worlds: [
    local => LocalWorld, redis => RedisWorld,
    #[cfg(feature = "aws")] dynamodb => ItemWorld,
], tests: [
    one_holds_it_until_it_is_given_back,
    its_holder_keeps_its_fence,
    an_expired_lock_is_the_next_ones,
    only_its_holder_gives_it_back,
    of_many_one_gets_it,
]);

const LONG: Duration = Duration::from_secs(60);

pub async fn one_holds_it_until_it_is_given_back<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    let first = here.locks.acquire("sweep", "ann", LONG).await.unwrap().unwrap();
    assert_eq!(there.locks.acquire("sweep", "bob", LONG).await.unwrap(), None);
    assert!(there.locks.acquire("other", "bob", LONG).await.unwrap().is_some());
    here.locks.release("sweep", "ann").await.unwrap();
    let second = there.locks.acquire("sweep", "bob", LONG).await.unwrap().unwrap();
    assert!(second > first, "{second:?} after {first:?}");
}

async fn its_holder_keeps_its_fence<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let first = node.locks.acquire("sweep", "ann", LONG).await.unwrap();
    for _ in 0..3 {
        world.pass(LONG * 2 / 3).await;
        assert_eq!(node.locks.acquire("sweep", "ann", LONG).await.unwrap(), first);
        assert_eq!(node.locks.acquire("sweep", "bob", LONG).await.unwrap(), None);
    }
}

async fn an_expired_lock_is_the_next_ones<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let mut last = node.locks.acquire("sweep", "ann", LONG).await.unwrap().unwrap();
    for holder in ["ann", "bob", "ann"] {
        world.pass(LONG + Duration::from_secs(1)).await;
        let next = node.locks.acquire("sweep", holder, LONG).await.unwrap().unwrap();
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
}

async fn only_its_holder_gives_it_back<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    node.locks.release("sweep", "bob").await.unwrap();
    node.locks.acquire("sweep", "ann", LONG).await.unwrap().unwrap();
    node.locks.release("sweep", "bob").await.unwrap();
    assert_eq!(node.locks.acquire("sweep", "bob", LONG).await.unwrap(), None);
    world.pass(LONG + Duration::from_secs(1)).await;
    node.locks.acquire("sweep", "bob", LONG).await.unwrap().unwrap();
    // Late.
    node.locks.release("sweep", "ann").await.unwrap();
    assert_eq!(node.locks.acquire("sweep", "ann", LONG).await.unwrap(), None);
}

pub async fn of_many_one_gets_it<W: SharedWorld>() {
    let world = W::open().await;
    let nodes = [world.node().await, world.node().await];
    let mut racers = tokio::task::JoinSet::new();
    for (n, node) in nodes.iter().cycle().take(64).enumerate() {
        let locks = node.locks.clone();
        racers.spawn(async move { locks.acquire("sweep", &format!("racer {n}"), LONG).await.unwrap() });
    }
    let fences: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(fences.len(), 1, "{fences:?}");
}
