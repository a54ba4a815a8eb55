//! A worker that nobody reaches any more: its work moves on, and what it says later counts for nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::partition::Partition;

const VISIBILITY_S: u64 = 4;
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SLOW: &str =
    "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.urandom(8).hex()\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_worker_that_is_cut_off_moves_and_its_late_result_is_refused() {
    let mut partition = Partition::new();
    let mut cluster = Cluster::of(1, 0)
        .set("POOL__SANDBOXES_MAX", 60)
        .set("QUEUE__VISIBILITY_S", VISIBILITY_S)
        .set("QUEUE__BACKOFF_MS", 100)
        .set("SHUTDOWN__DRAIN_MS", 20_000)
        .start()
        .await;
    cluster.add_worker_inside("far", &mut partition).await;
    let controller = cluster.controller(0);
    controller.deploy_python("slow", SLOW).await;
    let job = controller.submit("slow", &json!(6)).await;
    let running = controller.wait_running(&job).await;
    let far = running["workerId"].clone();
    assert_eq!(running["attempt"], 1, "{running}");
    cluster.add_worker("near").await;

    partition.cut();
    let cut = Instant::now();
    let moved = controller.wait_until(&job, |record| record["attempt"] == 2).await;
    let limit = Duration::from_secs(2 * VISIBILITY_S + 2);
    assert!(cut.elapsed() < limit, "it moved only after {:?}", cut.elapsed());
    assert_ne!(moved["workerId"], far, "{moved}");
    let ended = controller.wait_final(&job).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("SUCCESS"), &json!(2)), "{ended}");
    // Others are served all the while.
    assert!(controller.call("slow", &json!(0)).await["result"].is_string());

    partition.heal();
    // It finds out that its lease is over, or that its result is refused.
    let since = Instant::now();
    while !["lease lost", "outcome refused"].iter().any(|found| cluster.node("far").log().contains(found)) {
        assert!(since.elapsed() < Duration::from_secs(60), "the worker that was cut off never found out");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let later = controller.status(&job).await;
    assert_eq!((&later["result"], &later["attempt"]), (&ended["result"], &json!(2)), "{later}");
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_on_a_worker_that_is_cut_off_is_answered_by_another() {
    let mut partition = Partition::new();
    let mut cluster = Cluster::of(1, 0).set("POOL__SANDBOXES_MAX", 60).set("SHUTDOWN__DRAIN_MS", 20_000).start().await;
    cluster.add_worker_inside("far", &mut partition).await;
    let controller = cluster.controller(0);
    let slow = json!({ "name": "slow", "runtime": "python", "timeoutMs": 60_000, "code": { "inline": SLOW } });
    controller.deploy(slow).await;
    assert!(controller.call("slow", &json!(0)).await["result"].is_string());
    cluster.add_worker("near").await;
    let calling = tokio::spawn(controller.run("slow", &json!(3)).try_send());
    tokio::time::sleep(Duration::from_secs(1)).await;
    partition.cut();
    let answer = calling.await.expect("no panic").expect("an answer");
    assert_eq!(answer.expect(200)["status"], "SUCCESS", "{}", answer.text());
    partition.heal();
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_reaches_nobody_takes_no_work_until_it_is_reached_again() {
    let mut partition = Partition::new();
    let mut cluster = Cluster::of(1, 0)
        .set("POOL__SANDBOXES_MAX", 60)
        .set("FLEET__ALONE_AFTER_S", 5)
        .set("SHUTDOWN__DRAIN_MS", 20_000)
        .start()
        .await;
    cluster.add_worker_inside("far", &mut partition).await;
    let controller = cluster.controller(0);
    controller.deploy_python("echo", "def handler(event, context):\n    return event\n").await;
    assert_eq!(controller.call("echo", &json!(1)).await["result"], 1);
    // Longer than it may be silent: heartbeats alone are company.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let far = cluster.node("far").address().expect("an address");
    let ready = |partition: &Partition| partition.get(far, "/ready");
    assert!(ready(&partition).starts_with("HTTP/1.1 200"), "{}", ready(&partition));

    partition.cut();
    let since = Instant::now();
    loop {
        let said = ready(&partition);
        if said.starts_with("HTTP/1.1 503") {
            assert!(said.contains("cordoned") && said.contains("nobody of the fleet is heard"), "{said}");
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "it never found out that it is alone");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = cluster.node("far").log();
    assert!(log.contains("nobody of the fleet is heard"), "{log}");

    partition.heal();
    let since = Instant::now();
    while !ready(&partition).starts_with("HTTP/1.1 200") {
        assert!(since.elapsed() < Duration::from_secs(30), "it never found the others again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(controller.call("echo", &json!(2)).await["result"], 2);
    cluster.stop(STOP_LIMIT).await;
}
