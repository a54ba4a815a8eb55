//! What users see of a fleet: the same as of one node, through any controller.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::platform::ECHO;

const STOP_LIMIT: Duration = Duration::from_secs(40);

fn small() -> crate::support::cluster::Builder {
    Cluster::of(2, 2).set("POOL__SANDBOXES_MAX", 100).set("SHUTDOWN__DRAIN_MS", 20_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_deployed_through_one_controller_is_called_through_the_other() {
    let mut cluster = small().start().await;
    let (first, second) = (cluster.controller(0), cluster.controller(1));
    first.deploy_python("echo", ECHO).await;
    for n in 0..20 {
        let controller = if n % 2 == 0 { &first } else { &second };
        let record = controller.call("echo", &json!({ "n": n })).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!({ "n": n })), "{record}");
        assert!(record["workerId"].is_string(), "{record}");
    }
    let job = first.submit("echo", &json!("later")).await;
    let record = second.wait_final(&job).await;
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!("later")), "{record}");
    // A new version is called through the controller that did not publish it, soon.
    let changed =
        json!({ "runtime": "python", "code": { "inline": "def handler(event, context):\n    return 'two'\n" } });
    second.request(http::Method::PUT, "/functions/echo").json(&changed).send().await.expect(200);
    let since = std::time::Instant::now();
    while first.result("echo", &json!(1)).await != "two" {
        assert!(since.elapsed() < Duration::from_secs(10), "the first controller still calls the old version");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synchronous_calls_go_through_the_queue_where_it_is_said_so() {
    let mut cluster = small().set("FLEET__DISPATCH", "queue").start().await;
    let controller = cluster.controller(0);
    controller.deploy_python("echo", ECHO).await;
    for n in 0..5 {
        let record = controller.call("echo", &json!(n)).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(n)), "{record}");
    }
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_both_is_called_and_followed_by_the_controllers_of_others() {
    let mut cluster =
        Cluster::of(1, 0).and_both(1).set("POOL__SANDBOXES_MAX", 60).set("SHUTDOWN__DRAIN_MS", 20_000).start().await;
    let (controller, both) = (cluster.controller(0), cluster.client("both-0"));
    controller.deploy_python("echo", ECHO).await;
    let since = std::time::Instant::now();
    let worker = loop {
        let workers = controller.get("/workers").send().await.expect(200);
        if let Some(worker) = workers["items"].as_array().and_then(|all| all.first()) {
            break worker["id"].clone();
        }
        assert!(since.elapsed() < Duration::from_secs(10), "nobody is heard of");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for client in [&controller, &both] {
        let record = client.call("echo", &json!(1)).await;
        assert_eq!((&record["status"], &record["workerId"]), (&json!("SUCCESS"), &worker), "{record}");
    }
    // Its job, and the job's file, from the other node.
    let source = "import time\ndef handler(event, context):\n    print('begun', flush=True)\n    time.sleep(3)\n    \
                  open('/output/a.txt', 'w').write('left')\n    print('done', flush=True)\n    return 1\n";
    controller.deploy_python("slow", source).await;
    let job = controller.submit("slow", &json!(1)).await;
    let mut events = controller.get(&format!("/invocations/{job}/events")).events().await;
    let mut lines = Vec::new();
    let mut heard_at = None;
    while let Some(event) = events.next().await {
        if event.kind == "log" {
            heard_at.get_or_insert_with(std::time::Instant::now);
            lines.push(event.json()["line"].clone());
        }
    }
    assert_eq!(lines, ["begun", "done"]);
    let live_for = heard_at.expect("lines").elapsed();
    assert!(live_for > Duration::from_secs(1), "told as they were printed: the first {live_for:?} before the end");
    let file = controller.get(&format!("/invocations/{job}/files/a.txt")).send().await;
    assert_eq!((file.status, file.text().as_str()), (200, "left"));
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_calls_are_answered_all_the_same_and_ready_says_what_is_missing() {
    let mut cluster = small().start().await;
    let controller = cluster.controller(0);
    controller.deploy_python("echo", ECHO).await;
    assert_eq!(controller.result("echo", &json!(1)).await, 1);
    drop(cluster.redis.take());
    for n in 0..5 {
        assert_eq!(controller.result("echo", &json!(n)).await, n);
    }
    let job = controller.submit("echo", &json!("async")).await;
    assert_eq!(controller.wait_final(&job).await["result"], "async");
    let since = std::time::Instant::now();
    loop {
        let ready = controller.get("/ready").send().await.expect(200);
        if ready["dependencies"]["roster"]["status"] == "down" {
            assert_eq!(ready["status"], "degraded", "{ready}");
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{ready}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.stop(STOP_LIMIT).await;
}

/// Both pages list the same workers, and each is somebody who answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_controller_lists_every_worker_and_a_dead_one_as_dead() {
    let mut cluster = small().start().await;
    let listed = async |cluster: &Cluster, n: usize| -> Vec<(String, String)> {
        let page = cluster.controller(n).get("/workers").send().await.expect(200);
        let text = |worker: &serde_json::Value, name: &str| worker[name].as_str().unwrap_or_default().to_owned();
        page["items"].as_array().expect("items").iter().map(|w| (text(w, "id"), text(w, "state"))).collect()
    };
    let since = std::time::Instant::now();
    let one = loop {
        let (one, two) = (listed(&cluster, 0).await, listed(&cluster, 1).await);
        if one.len() == 2 && one == two {
            break one;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{one:?} {two:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(one.iter().all(|(_, state)| state == "ACTIVE"), "{one:?}");
    cluster.node("worker-0").kill9();
    let since = std::time::Instant::now();
    loop {
        let now = listed(&cluster, 1).await;
        if now.iter().filter(|(_, state)| state == "DEAD").count() == 1 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(45), "{now:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cluster.stop(STOP_LIMIT).await;
}
