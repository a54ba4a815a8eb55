//! Many calls: all answered, none lost, and warm.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

const CALLS: u32 = 10_000;
const CONNECTIONS: u32 = 256;

#[tokio::test]
async fn ten_thousand_calls_in_sequence_are_all_warm_after_the_first() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("echo", ECHO).await;
    let mut ids = HashSet::new();
    let mut not_warm = Vec::new();
    for i in 0..CALLS {
        let record = daemon.call("echo", &json!(i)).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(i)));
        assert!(ids.insert(record["requestId"].as_str().expect("an id").to_owned()), "an id used twice");
        if record["startType"] != "WARM" {
            not_warm.push((i, record["startType"].clone()));
        }
    }
    assert_eq!(not_warm.len(), 1, "only the first may start a sandbox: {not_warm:?}");
    assert_eq!(not_warm[0].0, 0);
    let counted = daemon.counted("echo", "SUCCESS").await;
    assert_eq!(counted, f64::from(CALLS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_over_256_connections_are_all_answered() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("echo", ECHO).await;
    let next = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, next) = ((*daemon).clone(), next.clone());
        callers.spawn(async move {
            let mut answered = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= CALLS {
                    return answered;
                }
                let record = client.call("echo", &json!({ "i": i, "pad": "x".repeat(i as usize % 500) })).await;
                assert_eq!((&record["status"], &record["result"]["i"]), (&json!("SUCCESS"), &json!(i)), "{record}");
                answered.push(record["requestId"].as_str().expect("an id").to_owned());
            }
        });
    }
    let mut ids = HashSet::new();
    while let Some(answered) = callers.join_next().await {
        for id in answered.expect("every call is answered rightly") {
            assert!(ids.insert(id), "an id used twice");
        }
    }
    assert_eq!(ids.len() as u32, CALLS);
    let counted = daemon.counted("echo", "SUCCESS").await;
    assert_eq!(counted, f64::from(CALLS));
    let records = daemon.list_all("/functions/echo/logs", 1000).await;
    let recorded: HashSet<&str> = records.iter().map(|record| record["requestId"].as_str().expect("an id")).collect();
    assert_eq!(recorded.len() as u32, CALLS, "and each has its record");
}

#[tokio::test]
async fn a_thousand_exceptions_in_a_row_keep_the_sandbox_and_are_counted_everywhere() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python(
            "f",
            "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    raise ValueError(f'number {n}')\n",
        )
        .await;
    for i in 1..=1000 {
        let record = daemon.call("f", &json!({})).await;
        assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("FunctionError")));
        let message = record["errorMessage"].as_str().expect("a message");
        assert!(message.ends_with(&format!("number {i}")), "the same sandbox all along: {message}");
        assert!(i == 1 || record["startType"] == "WARM", "call {i}: {record}");
    }
    let counted = daemon.counted("f", "FAILED").await;
    assert_eq!(counted, 1000.0);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let logged = daemon.list_all("/functions/f/logs?status=FAILED", 300).await;
    assert_eq!(logged.len(), 1000);
    for record in [&logged[0], &logged[999]] {
        let id = record["requestId"].as_str().expect("an id");
        assert_eq!(daemon.status(id).await["status"], "FAILED");
    }
}

/// A burst of short calls is served by the sandboxes that come back, not by one more for each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_does_not_start_a_sandbox_per_call() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("echo", ECHO).await;
    let calls = (0..400).map(|i| {
        let client = (*daemon).clone();
        tokio::spawn(async move { client.call("echo", &json!(i)).await })
    });
    let mut started = 0;
    for call in calls.collect::<Vec<_>>() {
        let record = call.await.expect("answered");
        assert_eq!(record["status"], "SUCCESS");
        started += u32::from(["COLD", "PREWARMED"].contains(&record["startType"].as_str().unwrap_or_default()));
    }
    assert!(started <= 32, "{started} sandboxes for 400 short calls");
}
