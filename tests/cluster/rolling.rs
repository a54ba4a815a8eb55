//! Every node is ended in order and started again, one after the other, under load: no caller notices.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::cluster::Cluster;

const CALLERS: usize = 8;
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SOURCE: &str = "import time\ndef handler(event, context):\n    time.sleep(0.02)\n    return event\n";

/// As a client with two addresses does: it stays with a controller until that says that it drains, or closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarting_every_node_in_turn_fails_no_call() {
    let mut cluster = Cluster::of(2, 2).set("POOL__SANDBOXES_MAX", 60).set("SHUTDOWN__DRAIN_MS", 20_000).start().await;
    cluster.controller(0).deploy_python("work", SOURCE).await;
    let addresses = Arc::new(Mutex::new(cluster.addresses()));
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let key = cluster.admin_key().to_owned();
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let (addresses, over, done, key) = (addresses.clone(), over.clone(), done.clone(), key.clone());
        callers.spawn(async move {
            let mut turn = n;
            while !over.load(Ordering::Relaxed) {
                let mut moved = 0;
                loop {
                    let known = addresses.lock().unwrap().clone();
                    let client = Client::new(known[turn % known.len()], key.clone());
                    match client.run("work", &json!(turn)).try_send().await {
                        Ok(answer) if answer.status == 200 => {
                            assert_eq!(answer.json()["status"], "SUCCESS", "{}", answer.text());
                            break;
                        }
                        // Draining, and said so before anything ran; or gone already: the other one has it.
                        Ok(answer) => assert_eq!(answer.json()["code"], "Draining", "{}", answer.text()),
                        Err(_) => {}
                    }
                    moved += 1;
                    turn += 1;
                    assert!(moved < 50, "no controller takes a call");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    for name in names {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let node = cluster.node(&name);
        if node.is_controller() {
            // Taken out of what callers know before it ends, as an operator does.
            let gone = node.address();
            addresses.lock().unwrap().retain(|address| Some(*address) != gone);
        }
        let code = cluster.node(&name).sigterm(STOP_LIMIT).await;
        assert_eq!(code, Some(0), "{name}:\n{}", cluster.node(&name).log());
        cluster.restart(&name).await;
        *addresses.lock().unwrap() = cluster.addresses();
    }
    over.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call failed");
    }
    assert!(done.load(Ordering::Relaxed) > 100, "only {} calls were made", done.load(Ordering::Relaxed));
    cluster.stop(STOP_LIMIT).await;
}
