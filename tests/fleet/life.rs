//! Cordon, uncordon and drain by the API, on a daemon that is its own worker.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, accepted};

const EXIT_LIMIT: Duration = Duration::from_secs(60);

async fn worker(daemon: &Daemon) -> Value {
    daemon.get("/workers").send().await.expect(200)["items"][0].clone()
}

#[tokio::test]
async fn a_cordoned_worker_takes_nothing_new_until_it_may_again() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", ECHO).await;
    daemon.call("f", &json!(1)).await;
    let id = worker(&daemon).await["id"].as_str().expect("an id").to_owned();
    let order = async |what: &str| daemon.post(&format!("/workers/{id}/{what}"), &json!({})).send().await;
    order("cordon").await.expect(200);
    assert_eq!(worker(&daemon).await["state"], "CORDONED");
    assert_eq!(daemon.run("f", &json!(1)).send().await.refused(503).1, "Draining");
    assert_eq!(daemon.get("/ready").send().await.status, 503);
    let job = accepted(&daemon.run("f", &json!(2)).header("x-async", "true").send().await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(daemon.status(&job).await["status"], "QUEUED", "it waits in the queue");
    order("uncordon").await.expect(200);
    assert_eq!(daemon.wait_final(&job).await["status"], "SUCCESS");
    assert_eq!(daemon.call("f", &json!(3)).await["startType"], "WARM", "what was warm stayed");
    let log = daemon.get("/audit").send().await.expect(200).to_string();
    assert!(log.contains("worker.cordon") && log.contains("worker.uncordon") && log.contains(&id), "{log}");
}

#[tokio::test]
async fn a_worker_that_is_told_to_drain_finishes_and_ends() {
    let mut daemon = Daemon::start().await;
    daemon
        .deploy_python("slow", "import time\ndef handler(event, context):\n    time.sleep(2)\n    return event\n")
        .await;
    let id = worker(&daemon).await["id"].as_str().expect("an id").to_owned();
    let running = tokio::spawn({
        let call = daemon.run("slow", &json!(5));
        async move { call.send().await.expect(200) }
    });
    while worker(&daemon).await["active"] != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.post(&format!("/workers/{id}/drain"), &json!({})).send().await.expect(202);
    assert_eq!(running.await.expect("no panic")["result"], 5, "what ran finished");
    let (status, _) = daemon.wait_for_exit(EXIT_LIMIT).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn only_an_admin_orders_and_only_workers_that_are_there() {
    let daemon = Daemon::start().await;
    let id = worker(&daemon).await["id"].as_str().expect("an id").to_owned();
    let bob = daemon.caller("bob", &["deploy", "invoke", "read"]).await;
    bob.post(&format!("/workers/{id}/cordon"), &json!({})).send().await.refused(403);
    for nobody in ["00000000-0000-7000-8000-000000000000", "no-id"] {
        let refused = daemon.post(&format!("/workers/{nobody}/drain"), &json!({})).send().await.refused(404);
        assert_eq!(refused.1, "WorkerNotFound");
    }
}
