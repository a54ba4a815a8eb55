//! Following invocations: async, status, events, cancel, idempotency.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, accepted, is_final};
use crate::support::sse::Event;

const SLEEPER: &str = "import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return event\n";
const TALKER: &str = "import sys, time\ndef handler(event, context):\n    for i in range(event['lines']):\n        \
                      print('line', i, flush=True)\n        time.sleep(event.get('pause', 0))\n    \
                      print('aside', file=sys.stderr, flush=True)\n    return 'said'\n";

#[tokio::test]
async fn an_accepted_call_is_queued_runs_and_ends() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("sleeper", SLEEPER).await;
    let id = daemon.submit("sleeper", &json!({ "s": 1 })).await;
    let first = daemon.status(&id).await;
    assert_eq!(first["requestId"], id.as_str());
    assert!(!is_final(&first), "{first}");
    assert!(first["result"].is_null());
    let running = daemon.wait_running(&id).await;
    assert_eq!(running["status"], "RUNNING");
    let record = daemon.wait_final(&id).await;
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!({ "s": 1 })));
    let seen = daemon.get(&format!("/invocations/{id}")).send().await.expect(200);
    assert_eq!(seen, record);
}

#[tokio::test]
async fn an_unknown_record_is_404_and_an_expired_one_410() {
    let daemon = Daemon::with("RETENTION__RESULTS_S", 2).set("RETENTION__SWEEP_S", 1).start().await;
    daemon.deploy_python("echo", ECHO).await;
    let id = daemon.submit("echo", &json!(1)).await;
    daemon.wait_final(&id).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    daemon.get(&format!("/status/{id}")).send().await.refused(410);
    daemon.get("/status/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11").send().await.refused(404);
}

#[tokio::test]
async fn a_call_can_be_watched_as_it_runs() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("talker", TALKER).await;
    let mut events = daemon.run("talker", &json!({ "lines": 3, "pause": 0.4 })).events().await;
    let mut seen: Vec<(Event, std::time::Instant)> = Vec::new();
    while let Some(event) = events.next().await {
        seen.push((event, std::time::Instant::now()));
    }
    let kinds: Vec<&str> = seen.iter().map(|(event, _)| event.kind.as_str()).collect();
    assert_eq!(kinds, ["queued", "started", "log", "log", "log", "log", "result"]);
    let ids: HashSet<&str> = seen.iter().map(|(event, _)| event.id.as_str()).collect();
    assert_eq!(ids.len(), seen.len(), "each has an id of its own");
    let gap = seen[4].1.duration_since(seen[2].1);
    assert!(gap > Duration::from_millis(500), "lines come as they are printed, not at the end: {gap:?}");
    assert!(seen[2].0.data.contains("line 0") && seen[5].0.data.contains("aside"), "{seen:?}");
    let record = seen[6].0.json();
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!("said")));
    assert_eq!(record["stdout"], "line 0\nline 1\nline 2\n");
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_seen() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("talker", TALKER).await;
    let id = daemon.submit("talker", &json!({ "lines": 6, "pause": 0.3 })).await;
    let path = format!("/invocations/{id}/events");
    let mut events = daemon.get(&path).events().await;
    let mut before = Vec::new();
    while before.iter().filter(|event: &&Event| event.kind == "log").count() < 2 {
        before.push(events.next().await.expect("more events"));
    }
    drop(events);
    let last = before.last().expect("events").id.clone();
    let after = daemon.get(&path).header("last-event-id", &last).events().await.rest().await;

    let all: Vec<&Event> = before.iter().chain(&after).collect();
    let ids: HashSet<&str> = all.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "none twice");
    let lines: Vec<bool> = (0..6).map(|i| all.iter().any(|event| event.data.contains(&format!("line {i}")))).collect();
    assert_eq!(lines, [true; 6], "none lost");
    assert_eq!(after.last().expect("events").kind, "result");

    let late = daemon.get(&path).events().await.rest().await;
    assert_eq!(late.last().expect("events").kind, "result", "a finished call's stream ends with its result");
    // 204 is how a server of events tells a client not to come back.
    daemon.get(&path).header("last-event-id", &after.last().expect("events").id).send().await.expect(204);
}

#[tokio::test]
async fn a_failure_is_a_result_event_too() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    raise ValueError('no such city')\n").await;
    let events = daemon.run("f", &json!({})).events().await.rest().await;
    let record = events.last().expect("events").json();
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("FunctionError")));
    daemon.run("absent", &json!({})).header("accept", "text/event-stream").send().await.refused(404);
}

#[tokio::test]
async fn one_idempotency_key_is_one_invocation() {
    let daemon = Daemon::start().await;
    let counter = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return n\n";
    daemon.deploy_python("counter", counter).await;

    let sync = |input: i32| daemon.run("counter", &json!(input)).header("idempotency-key", "one");
    let first = sync(1).send().await.expect(200);
    let second = sync(1).send().await.expect(200);
    assert_eq!((&first["requestId"], &first["result"]), (&second["requestId"], &second["result"]));
    sync(2).send().await.refused(422);

    let asynchronous =
        |key: &str| daemon.run("counter", &json!("a")).header("x-async", "true").header("idempotency-key", key);
    let ids = [accepted(&asynchronous("two").send().await), accepted(&asynchronous("two").send().await)];
    assert_eq!(ids[0], ids[1]);
    let other = accepted(&asynchronous("three").send().await);
    assert_ne!(ids[0], other);
    daemon.wait_final(&ids[0]).await;
    daemon.wait_final(&other).await;
    assert_eq!(daemon.result("counter", &json!(0)).await, 4, "the first, two accepted ones and this");

    daemon.deploy_python("elsewhere", ECHO).await;
    let elsewhere = daemon.run("elsewhere", &json!("e")).header("idempotency-key", "one").send().await.expect(200);
    assert_eq!(elsewhere["result"], "e", "a key belongs to its function");
    daemon.run("counter", &json!(1)).header("idempotency-key", &"k".repeat(5000)).send().await.refused(400);
}

/// However the answer is wanted the first time and the second, it is one invocation.
#[tokio::test]
async fn an_idempotency_key_holds_across_the_ways_of_asking() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python(
            "f",
            "import time\ndef handler(event, context):\n    time.sleep(0.3)\n    return context.request_id\n",
        )
        .await;
    let ways = ["sync", "async", "stream"];
    for first in ways {
        for second in ways {
            let key = format!("{first}-{second}");
            let mut ids = Vec::new();
            for way in [first, second] {
                let request = daemon.run("f", &json!(key)).header("idempotency-key", &key);
                let id = match way {
                    "sync" => request.send().await.expect(200)["requestId"].as_str().expect("an id").to_owned(),
                    "async" => accepted(&request.header("x-async", "true").send().await),
                    _ => {
                        let last = request.events().await.rest().await.pop().expect("events");
                        assert_eq!(last.kind, "result", "{key}: {}", last.data);
                        last.json()["requestId"].as_str().expect("an id").to_owned()
                    }
                };
                ids.push(id);
            }
            assert_eq!(ids[0], ids[1], "{key}");
            let record = daemon.wait_final(&ids[0]).await;
            assert_eq!((&record["result"], &record["attempt"]), (&json!(ids[0]), &json!(1)), "{key}: {record}");
        }
    }
    assert_eq!(daemon.counted("f", "SUCCESS").await, 9.0);
}

/// The second comes while the first still runs: it waits for the same invocation instead of starting another.
#[tokio::test]
async fn concurrent_requests_with_one_key_share_one_invocation() {
    let daemon = Daemon::start().await;
    let source = "import time, uuid\ndef handler(event, context):\n    time.sleep(0.7)\n    return str(uuid.uuid4())\n";
    daemon.deploy_python("f", source).await;
    let requests = (0..8).map(|_| daemon.run("f", &json!({})).header("idempotency-key", "k").send());
    let answers = futures_util::future::join_all(requests).await;
    let results: HashSet<String> = answers.iter().map(|answer| answer.expect(200)["result"].to_string()).collect();
    assert_eq!(results.len(), 1, "{results:?}");
}

#[tokio::test]
async fn a_running_call_can_be_cancelled() {
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 300).start().await;
    daemon.deploy_python("sleeper", SLEEPER).await;
    let id = daemon.submit("sleeper", &json!({ "s": 25 })).await;
    daemon.wait_running(&id).await;
    let answer = daemon.delete(&format!("/invocations/{id}")).send().await;
    assert!([200, 202].contains(&answer.status), "{}", answer.text());
    let record = daemon.wait_final(&id).await;
    assert_eq!((&record["status"], &record["errorType"]), (&json!("CANCELLED"), &json!("Cancelled")));
    let again = daemon.delete(&format!("/invocations/{id}")).send().await;
    again.refused(409);
    assert_eq!(daemon.result("sleeper", &json!({ "s": 0 })).await, json!({ "s": 0 }), "the next call is fine");
}

#[tokio::test]
async fn a_queued_call_can_be_cancelled_and_never_runs() {
    let daemon = Daemon::with("POOL__CONCURRENCY_MAX", 1).start().await;
    daemon.deploy_python("sleeper", SLEEPER).await;
    let running = daemon.submit("sleeper", &json!({ "s": 2 })).await;
    daemon.wait_running(&running).await;
    let waiting = daemon.submit("sleeper", &json!({ "s": 0 })).await;
    daemon.delete(&format!("/invocations/{waiting}")).send().await;
    let record = daemon.wait_final(&waiting).await;
    assert_eq!(record["status"], "CANCELLED", "{record}");
    assert!(record["result"].is_null());
    assert_eq!(daemon.wait_final(&running).await["status"], "SUCCESS");
}

#[tokio::test]
async fn a_sync_wait_that_runs_out_is_504_and_the_call_goes_on() {
    let daemon = Daemon::with("POOL__CONCURRENCY_MAX", 1).set("HTTP__SYNC_WAIT_EXTRA_MS", 500).start().await;
    daemon.deploy_python_with("long", SLEEPER, json!({ "timeoutMs": 20_000 })).await;
    daemon.deploy_python_with("short", SLEEPER, json!({ "timeoutMs": 500 })).await;
    let blocker = daemon.submit("long", &json!({ "s": 6 })).await;
    daemon.wait_running(&blocker).await;
    // RUNNING comes before the sandbox: on a busy machine the next call could still be first to get the only place.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answer = daemon.run("short", &json!({ "s": 0 })).send().await;
    if answer.status == 503 {
        // No place came free in time: a refusal, said so, with a hint when to come back.
        answer.refused(503);
        assert!(answer.header("retry-after").is_some());
    } else {
        let body = answer.expect(504);
        let id = body["requestId"].as_str().expect("the id of the call that goes on").to_owned();
        assert_eq!(daemon.wait_final(&id).await["status"], "SUCCESS");
    }
    daemon.wait_final(&blocker).await;
}
