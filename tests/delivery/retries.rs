//! What fails is tried again, then listed, looked at and replayed; what is old goes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::{ECHO, accepted, is_final};

/// Far longer than a commit takes.
const LETTER_LIMIT: Duration = Duration::from_secs(10);

fn quick_retries() -> Builder {
    Daemon::with("QUEUE__BACKOFF_MS", 100).set("QUEUE__BACKOFF_MAX_MS", 300)
}

/// The record says DEAD first; its letter follows.
async fn wait_for_letter(daemon: &Daemon) -> Vec<Value> {
    let since = Instant::now();
    loop {
        let letters = daemon.list_all("/dead-letters", 10).await;
        if !letters.is_empty() || since.elapsed() > LETTER_LIMIT {
            return letters;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_job_that_keeps_failing_is_dead_after_three_attempts_listed_and_replayable() {
    let daemon = quick_retries().start().await;
    let source = "import os\ndef handler(event, context):\n    if os.environ['MODE'] == 'bad':\n        \
                  raise RuntimeError('not today')\n    return event\n";
    daemon.deploy_python_with("f", source, json!({ "env": { "MODE": "bad" } })).await;
    let id = daemon.submit("f", &json!({ "order": 7 })).await;
    let record = daemon.wait_until(&id, |record| record["status"] == "DEAD").await;
    assert_eq!(record["attempt"], 3, "{record}");
    assert_eq!(record["errorType"], "FunctionError");
    assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains("not today")), "{record}");

    let letters = wait_for_letter(&daemon).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let text = letters[0].to_string();
    assert!(text.contains(&id), "{text}");
    let letter = daemon.get(&format!("/dead-letters/{id}")).send().await.expect(200);
    assert!(letter.to_string().contains("not today"), "{letter}");
    daemon
        .caller("bob", &["deploy", "invoke", "read"])
        .await
        .get(&format!("/dead-letters/{id}"))
        .send()
        .await
        .refused(404);

    let replay = accepted(&daemon.post(&format!("/dead-letters/{id}/replay"), &json!({})).send().await);
    assert_ne!(replay, id, "a replay is an invocation of its own");
    let again = daemon.wait_until(&replay, is_final).await;
    assert_eq!(again["replayOf"], id.as_str(), "{again}");
    daemon.post(&format!("/dead-letters/{id}/replay"), &json!({})).send().await.refused(404);
    assert_eq!(daemon.status(&id).await["status"], "DEAD", "the old record stays as it was");
}

#[tokio::test]
async fn a_failure_that_passes_is_retried_to_success() {
    let daemon = quick_retries().start().await;
    let source = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    if n < 3:\n        raise RuntimeError('not yet')\n    return n\n";
    daemon.deploy_python("f", source).await;
    let record = {
        let id = daemon.submit("f", &json!({})).await;
        daemon
            .wait_until(&id, |record| ["SUCCESS", "DEAD"].contains(&record["status"].as_str().unwrap_or_default()))
            .await
    };
    assert_eq!(
        (&record["status"], &record["result"], &record["attempt"]),
        (&json!("SUCCESS"), &json!(3), &json!(3)),
        "{record}"
    );
    assert_eq!(daemon.list_all("/dead-letters", 10).await.len(), 0);
}

#[tokio::test]
async fn a_sync_failure_is_not_retried() {
    let daemon = quick_retries().start().await;
    daemon
        .deploy_python(
            "f",
            "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    raise RuntimeError(str(n))\n",
        )
        .await;
    daemon.call("f", &json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = daemon.call("f", &json!({})).await;
    assert!(record["errorMessage"].as_str().is_some_and(|message| message.ends_with('2')), "{record}");
    assert_eq!(daemon.list_all("/dead-letters", 10).await.len(), 0);
}

/// The lease of a call that outlives the visibility window is extended: nobody runs it a second time meanwhile.
#[tokio::test]
async fn a_call_longer_than_the_visibility_window_runs_once() {
    let daemon = quick_retries().set("QUEUE__VISIBILITY_S", 2).start().await;
    daemon
        .deploy_python(
            "f",
            "import time\ndef handler(event, context):\n    time.sleep(7)\n    return context.request_id\n",
        )
        .await;
    let id = daemon.submit("f", &json!({})).await;
    let record = daemon.wait_final(&id).await;
    assert_eq!((&record["status"], &record["attempt"]), (&json!("SUCCESS"), &json!(1)), "{record}");
    let counted = daemon.counted("f", "SUCCESS").await;
    assert_eq!(counted, 1.0);
}

#[tokio::test]
async fn results_and_records_go_when_their_time_is_over() {
    let builder = Daemon::with("RETENTION__RESULTS_S", 1).set("RETENTION__LOGS_S", 4).set("RETENTION__SWEEP_S", 1);
    let daemon = builder.start().await;
    daemon.deploy_python("f", ECHO).await;
    let id = daemon.submit("f", &json!(1)).await;
    daemon.wait_final(&id).await;
    assert_eq!(daemon.list_all("/logs", 10).await.len(), 1);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(daemon.list_all("/logs", 10).await.len(), 0);
    assert!([404, 410].contains(&daemon.get(&format!("/status/{id}")).send().await.status));
}

#[tokio::test]
async fn the_number_of_records_is_bounded() {
    let daemon = Daemon::with("RETENTION__RECORDS_MAX", 50).set("RETENTION__SWEEP_S", 1).start().await;
    daemon.deploy_python("f", ECHO).await;
    let mut last = String::new();
    for i in 0..200 {
        last = daemon.call("f", &json!(i)).await["requestId"].as_str().expect("an id").to_owned();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = daemon.list_all("/logs", 100).await;
    assert!(kept.len() <= 60, "{} kept", kept.len());
    assert_eq!(kept[0]["requestId"], last.as_str(), "the newest stay");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_took() {
    let daemon = Daemon::with("QUEUE__JOBS_MAX", 10).set("POOL__CONCURRENCY_MAX", 1).start().await;
    daemon
        .deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(0.4)\n    return event\n")
        .await;
    let mut taken = Vec::new();
    let mut refused = 0;
    for i in 0..30 {
        let answer = daemon.run("f", &json!(i)).header("x-async", "true").send().await;
        if answer.status == 202 {
            taken.push(accepted(&answer));
            continue;
        }
        answer.refused(503);
        assert!(answer.header("retry-after").is_some());
        refused += 1;
    }
    assert!(refused > 0 && taken.len() >= 10, "{} taken, {refused} refused", taken.len());
    for id in &taken {
        assert_eq!(daemon.wait_final(id).await["status"], "SUCCESS");
    }
}

#[tokio::test]
async fn a_payload_too_large_for_a_message_is_refused_or_kept_beside_it() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    return len(event)\n").await;
    let large = json!("x".repeat(3 << 20));
    let id = accepted(&daemon.run("f", &large).header("x-async", "true").send().await);
    assert_eq!(daemon.wait_final(&id).await["result"], 3 << 20);
    let too_large = json!("x".repeat(7 << 20));
    daemon.run("f", &too_large).header("x-async", "true").send().await.refused(413);
}
