//! A node that is both: its own worker first, and others where that one can't.

use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::domain::function::Version;
use crate::domain::outcome::{Outcome, StartType, Status};
use crate::fleet::Together;
use crate::ports::executor::{ExecuteError, Executor, Order};

async fn run(node: &Together, version: &Arc<Version>, program: &str) -> Result<Outcome, ExecuteError> {
    let call = node.execute(invocation(version, program), ACQUIRE, None);
    tokio::time::timeout(4 * SOON, call).await.expect("a call ends")
}

/// One place, so that it is full with one call.
fn narrow() -> Rig {
    let mut rig = Rig::new();
    rig.config.pool.concurrency_max = 1;
    rig
}

#[tokio::test]
async fn calls_run_here_and_where_there_is_no_place_elsewhere() {
    let rig = narrow();
    let f = rig.function("f");
    let (own, other) = (rig.node().await, rig.node().await);
    let node = rig.together(&own, 1).await;
    let first = run(&node, &f, "echo").await.unwrap();
    assert_eq!((first.status, first.start_type, first.place), (Status::Success, Some(StartType::Cold), None));
    assert_eq!(run(&node, &f, "echo").await.unwrap().start_type, Some(StartType::Warm));
    let long = {
        let (node, f) = (node.clone(), f.clone());
        tokio::spawn(async move { run(&node, &f, "sleep 1000").await.unwrap() })
    };
    until("it is full", || own.worker.view().unwrap().active == 1).await;
    let elsewhere = run(&node, &f, "echo").await.unwrap();
    assert_eq!(elsewhere.place.map(|place| place.worker), Some(other.id));
    assert_eq!(long.await.unwrap().place, None);
    assert_eq!((node.view().unwrap().id, node.others().len()), (own.id, 1));
}

#[tokio::test]
async fn where_nobody_else_is_calls_wait_here() {
    let rig = narrow();
    let f = rig.function("f");
    let own = rig.node().await;
    let node = rig.together(&own, 0).await;
    let calls = (0..3).map(|_| run(&node, &f, "sleep 100"));
    for ended in futures_util::future::join_all(calls).await {
        assert_eq!(ended.unwrap().status, Status::Success);
    }
}

#[tokio::test]
async fn what_is_cordoned_here_goes_on_elsewhere_and_orders_reach_both() {
    let rig = Rig::new();
    let f = rig.function("f");
    let (own, other) = (rig.node().await, rig.node().await);
    let node = rig.together(&own, 1).await;
    node.order(own.id, Order::Cordon).await.unwrap();
    assert_eq!(run(&node, &f, "echo").await.unwrap().place.map(|place| place.worker), Some(other.id));
    node.order(own.id, Order::Uncordon).await.unwrap();
    assert_eq!(run(&node, &f, "echo").await.unwrap().place, None);
    node.order(other.id, Order::Cordon).await.unwrap();
    assert!(other.worker.execute(invocation(&f, "echo"), ACQUIRE, None).await.is_err());
}

#[tokio::test]
async fn a_call_is_cancelled_wherever_it_runs() {
    let rig = narrow();
    let f = rig.function("f");
    let (own, other) = (rig.node().await, rig.node().await);
    let node = rig.together(&own, 1).await;
    let calls = [invocation(&f, "sleep 9000"), invocation(&f, "sleep 9000")];
    let mut running = Vec::new();
    for (call, at) in calls.iter().zip([&own, &other]) {
        let (node, call) = (node.clone(), call.clone());
        running.push(tokio::spawn(async move { node.execute(call, ACQUIRE, None).await.unwrap() }));
        until("it runs", || at.worker.view().unwrap().active == 1).await;
    }
    for call in &calls {
        assert!(node.cancel(call.id));
    }
    for ended in futures_util::future::join_all(running).await {
        assert_eq!(ended.unwrap().status, Status::Cancelled);
    }
    assert!(!node.cancel(calls[0].id));
}

#[tokio::test]
async fn another_controller_calls_the_worker_of_a_node_that_is_both() {
    let rig = Rig::new();
    let f = rig.function("f");
    let own = rig.node().await;
    let node = rig.together(&own, 0).await;
    run(&node, &f, "echo").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (controller, _) = rig.fleet(1).await;
    let warm = super::rig::run(&controller, &f, "echo").await.unwrap();
    assert_eq!((warm.start_type, warm.place.map(|place| place.worker)), (Some(StartType::Warm), Some(own.id)));
}
