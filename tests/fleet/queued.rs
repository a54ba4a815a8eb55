//! Synchronous calls that go through the queue, as all do with `fleet.dispatch = "queue"`, and those of a direct fleet when no worker is
//! reached: the caller sees no difference.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

async fn daemon() -> Daemon {
    Daemon::with("FLEET__DISPATCH", "queue").start().await
}

#[tokio::test]
async fn a_call_through_the_queue_answers_its_caller_with_the_whole_record() {
    let daemon = daemon().await;
    daemon.deploy_python("f", ECHO).await;
    for n in 0..5 {
        let record = daemon.call("f", &json!({ "n": n })).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!({ "n": n })), "{record}");
        assert_eq!(record["attempt"], 1);
        let total = record["timings"]["totalMs"].as_f64().expect("a number");
        let queue = record["timings"]["queueMs"].as_f64().expect("a number");
        assert!(queue >= 0.0 && queue <= total, "the queue is part of the whole: {record}");
        let stored = daemon.status(record["requestId"].as_str().expect("an id")).await;
        assert_eq!(stored["result"], record["result"], "{stored}");
    }
    let jobs = daemon.metrics().await.sum("faasd_worker_jobs_total", &["end=\"done\""]);
    assert!(jobs >= 5.0, "{jobs}");
}

#[tokio::test]
async fn a_function_that_fails_is_not_tried_again_where_its_caller_waits() {
    let daemon = daemon().await;
    daemon.deploy_python("bad", "def handler(event, context):\n    raise ValueError('no')\n").await;
    let answer = daemon.run("bad", &json!(1)).send().await;
    assert_eq!(answer.header("x-faasd-function-error"), Some("FunctionError"), "{}", answer.text());
    let record = answer.expect(200);
    assert_eq!((&record["status"], &record["attempt"]), (&json!("FAILED"), &json!(1)), "{record}");
    assert!(daemon.list_all("/dead-letters", 10).await.is_empty(), "nobody has to look at it");
}

#[tokio::test]
async fn one_key_is_one_call_through_the_queue_too() {
    let daemon = daemon().await;
    daemon.deploy_python("f", "import uuid\ndef handler(event, context):\n    return str(uuid.uuid4())\n").await;
    let call =
        async || -> Value { daemon.run("f", &json!(1)).header("idempotency-key", "k1").send().await.expect(200) };
    let (first, again, third) = tokio::join!(call(), call(), call());
    assert_eq!(first["requestId"], again["requestId"]);
    assert_eq!(first["result"], again["result"]);
    assert_eq!(first["result"], third["result"]);
}

#[tokio::test]
async fn a_stream_of_a_queued_call_tells_of_its_beginning_and_its_end() {
    let daemon = daemon().await;
    daemon.deploy_python("f", "def handler(event, context):\n    print('hello')\n    return 7\n").await;
    let events = daemon.run("f", &json!(1)).header("accept", "text/event-stream").events().await;
    let all = events.rest().await;
    let kinds: Vec<&str> = all.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"queued"), Some(&"result")), "{kinds:?}");
    assert!(kinds.contains(&"started"), "{kinds:?}");
}
