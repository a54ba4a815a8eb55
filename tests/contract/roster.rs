//! The roster: who was heard, who is silent, and since when by one clock.

use std::time::Duration;

use faasd::domain::function::Runtime;
use faasd::domain::ids::WorkerId;
use faasd::domain::time::Timestamp;
use faasd::ports::executor::{PoolView, WorkerState, WorkerView};
use faasd::ports::roster::{DEAD_AFTER, FORGOTTEN_AFTER, WORKERS_MAX};

use super::samples::worker_id;
use super::shared::{LocalWorld, RedisWorld, SharedWorld};

contract!(worlds: [local => LocalWorld, redis => RedisWorld], tests: [
    every_node_sees_who_was_heard,
    a_worker_that_left_is_not_listed,
    the_silent_are_dead_and_then_forgotten,
    there_is_room_for_so_many,
]);

pub fn view(id: WorkerId) -> WorkerView {
    WorkerView {
        id,
        address: "10.0.3.7:8080".to_owned(),
        state: WorkerState::Active,
        pools: [(Runtime::Python, PoolView { warm: 7, prewarmed: 2, busy: 3, starting: 1 })].into(),
        active: 3,
        waiting: 1,
        capacity: 16,
        load: 0.1875,
        mean_ms: 0.0,
        // Nobody believes it.
        last_seen: Timestamp(0),
    }
}

pub async fn every_node_sees_who_was_heard<W: SharedWorld>() {
    let world = W::open().await;
    let (here, there) = (world.node().await, world.node().await);
    assert_eq!(there.roster.workers().await.unwrap(), []);
    let mut views = [view(worker_id()), WorkerView { state: WorkerState::Draining, ..view(worker_id()) }];
    here.roster.beat(&views[0]).await.unwrap();
    there.roster.beat(&views[1]).await.unwrap();
    views[0].active = 9;
    here.roster.beat(&views[0]).await.unwrap();
    views.sort_by_key(|view| view.id);
    for node in [&here, &there] {
        let seen = node.roster.workers().await.unwrap();
        assert!(seen.iter().all(|view| view.last_seen > Timestamp(1_700_000_000_000)), "{seen:?}");
        let seen: Vec<_> = seen.into_iter().map(|seen| WorkerView { last_seen: Timestamp(0), ..seen }).collect();
        assert_eq!(seen, views);
    }
}

pub async fn a_worker_that_left_is_not_listed<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (stays, goes) = (view(worker_id()), view(worker_id()));
    node.roster.beat(&stays).await.unwrap();
    node.roster.beat(&goes).await.unwrap();
    node.roster.leave(goes.id).await.unwrap();
    node.roster.leave(worker_id()).await.unwrap();
    let ids: Vec<_> = node.roster.workers().await.unwrap().into_iter().map(|view| view.id).collect();
    assert_eq!(ids, [stays.id]);
}

async fn the_silent_are_dead_and_then_forgotten<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let (silent, lively) = (worker_id(), worker_id());
    let state = async |id| {
        let seen = node.roster.workers().await.unwrap();
        seen.into_iter().find(|view| view.id == id).map(|view| view.state)
    };
    node.roster.beat(&view(silent)).await.unwrap();
    world.pass(DEAD_AFTER - Duration::from_secs(5)).await;
    assert_eq!(state(silent).await, Some(WorkerState::Active));
    node.roster.beat(&view(lively)).await.unwrap();
    world.pass(Duration::from_secs(6)).await;
    assert_eq!(state(silent).await, Some(WorkerState::Dead));
    assert_eq!(state(lively).await, Some(WorkerState::Active));
    node.roster.beat(&view(silent)).await.unwrap();
    assert_eq!(state(silent).await, Some(WorkerState::Active), "it was only slow");
    world.pass(FORGOTTEN_AFTER - Duration::from_secs(10)).await;
    node.roster.beat(&view(lively)).await.unwrap();
    assert_eq!(state(silent).await, Some(WorkerState::Dead));
    world.pass(Duration::from_secs(11)).await;
    assert_eq!(state(silent).await, None);
    assert_eq!(state(lively).await, Some(WorkerState::Active));
}

async fn there_is_room_for_so_many<W: SharedWorld>() {
    let world = W::open().await;
    let node = world.node().await;
    let ids: Vec<WorkerId> = (0..WORKERS_MAX as u128).map(|n| WorkerId(uuid::Uuid::from_u128(n))).collect();
    for some in ids.chunks(512) {
        let mut beats = tokio::task::JoinSet::new();
        for id in some {
            let (roster, view) = (node.roster.clone(), view(*id));
            beats.spawn(async move { roster.beat(&view).await.unwrap() });
        }
        beats.join_all().await;
    }
    let full = node.roster.beat(&view(worker_id())).await.unwrap_err();
    assert!(full.to_string().contains("no room"), "{full}");
    node.roster.beat(&view(ids[0])).await.unwrap();
    node.roster.leave(ids[1]).await.unwrap();
    node.roster.beat(&view(worker_id())).await.unwrap();
    assert_eq!(node.roster.workers().await.unwrap().len(), WORKERS_MAX);
}
