//! `POST /run`: answers, refusals, the asynchronous way, idempotency, the end of waiting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};

use super::client::run_body;
use super::fakes::expired_id;
use super::rig::{Rig, outcome};
use crate::config::Config;
use crate::domain::job::{DeadLetter, Payload};
use crate::domain::outcome::Status;
use crate::domain::time::Timestamp;
use crate::ports::bus::{Bus, News};

#[tokio::test]
async fn a_call_answers_with_its_record() {
    let rig = Rig::new().await;
    let id = rig.echo().await;
    let reply = rig.run(r#"{"a": [1, 2.50, "é"]}"#).await;
    let record = reply.ok();
    assert_eq!(record["status"], "SUCCESS");
    assert_eq!(record["functionId"].as_str(), Some(id.as_str()));
    assert_eq!(record["requestId"].as_str(), Some(reply.header("x-request-id")));
    assert!(reply.body.windows(6).any(|part| part == b"[1, 2."), "the result is the input's very bytes");
    assert!(!reply.headers.contains_key("x-faasd-function-error"));

    let again = rig.get(&rig.ann, &format!("/api/status/{}", record["requestId"].as_str().unwrap())).await;
    assert_eq!(again.ok(), record);
    assert_eq!(
        rig.post(&rig.ann, "/api/run", &format!(r#"{{"functionId": "{id}"}}"#)).await.ok()["result"],
        serde_json::Value::Null
    );
}

#[tokio::test]
async fn what_the_function_did_is_200_and_what_the_platform_could_not_is_not() {
    let rig = Rig::new().await;
    rig.echo().await;
    let raised = rig.run("\"raise\"").await;
    assert_eq!(raised.ok()["status"], "FAILED");
    assert_eq!(raised.header("x-faasd-function-error"), "FunctionError");

    let full = rig.run("\"full\"").await;
    full.refused(503, "NoCapacity");
    assert_eq!(full.header("retry-after"), "3");

    let broken = rig.run("\"break\"").await;
    broken.refused(503, "PlatformError");
    let record = rig.get(&rig.ann, &format!("/status/{}", broken.header("x-request-id"))).await.ok();
    assert_eq!((&record["status"], &record["errorType"]), (&"FAILED".into(), &"PlatformError".into()));

    rig.run("\"panic\"").await.refused(500, "InternalError");
    assert_eq!(rig.controller.calls_running(), 0);
}

#[tokio::test]
async fn a_bad_request_says_what_is_wrong() {
    let rig = Rig::new().await;
    rig.echo().await;
    let refusal = async |body: &str| rig.post(&rig.ann, "/run", body).await.refused(400, "InvalidRequest");
    assert!(refusal("{nope").await.contains("line 1 column 2"));
    assert!(refusal("").await.contains("not valid JSON"));
    assert!(refusal("[\"echo\"]").await.contains("not an array"));
    assert!(refusal("{}").await.contains("functionId or name"));
    assert!(refusal(r#"{"name": 7}"#).await.contains("line 1"));
    assert!(refusal(r#"{"name": "echo", "inputdata": 7}"#).await.contains("inputdata"));
    assert!(refusal(r#"{"name": "echo", "inputData": {]}"#).await.contains("line 1"));
    rig.post(&rig.ann, "/run", r#"{"name": "nobody"}"#).await.refused(404, "FunctionNotFound");
    let odd = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "maybe").send(run_body("1")).await;
    assert!(odd.refused(400, "InvalidRequest").contains("\"maybe\""));
}

#[tokio::test]
async fn payloads_keep_to_their_limit() {
    let mut config = Config::default();
    config.limits.sync_payload_bytes = 100_000;
    config.limits.async_payload_bytes = 100;
    let rig = Rig::with(config).await;
    rig.echo().await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    rig.run(&text(99_998)).await.ok();
    rig.run(&text(99_999)).await.refused(413, "PayloadTooLarge");
    rig.run(&text(1_000_000)).await.refused(413, "PayloadTooLarge");
    let ask = |input: String| rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(run_body(&input));
    assert_eq!(ask(text(98)).await.status, StatusCode::ACCEPTED);
    assert_eq!(ask(text(99)).await.status, StatusCode::ACCEPTED);
    let jobs = rig.world.jobs.lock().unwrap();
    assert!(matches!(jobs[0].payload, Payload::Inline(_)));
    assert!(matches!(jobs[1].payload, Payload::Stored(_)));
}

#[tokio::test]
async fn the_version_is_cached_until_news_of_a_change() {
    let rig = Rig::new().await;
    let id = rig.echo().await;
    rig.run("1").await.ok();
    let reads = rig.world.registry_reads.load(Ordering::Relaxed);
    rig.run("1").await.ok();
    assert_eq!(rig.world.registry_reads.load(Ordering::Relaxed), reads);
    rig.bus.publish(News::FunctionChanged(id.parse().unwrap()));
    tokio::task::yield_now().await;
    rig.run("1").await.ok();
    assert!(rig.world.registry_reads.load(Ordering::Relaxed) > reads);
}

#[tokio::test]
async fn a_change_of_one_function_costs_the_others_no_read() {
    let rig = Rig::new().await;
    rig.echo().await;
    let other = r#"{"name": "other", "runtime": "python", "code": {"inline": "def handler(e, c): return e"}}"#;
    let run = async |key: &str, name: &str| rig.post(key, "/run", &format!(r#"{{"name": "{name}"}}"#)).await.ok();
    run(&rig.ann, "echo").await;
    // An admin's name for somebody else's function.
    run(&rig.admin, "echo").await;
    let reads = || rig.world.registry_reads.load(Ordering::Relaxed);
    assert_eq!(rig.post(&rig.admin, "/functions", other).await.status, StatusCode::CREATED);
    tokio::task::yield_now().await;
    let before = reads();
    run(&rig.ann, "echo").await;
    assert_eq!(reads(), before);
    // A new function may have taken the name that an admin used.
    assert_eq!(rig.post(&rig.admin, "/functions", &other.replace("other", "echo")).await.status, StatusCode::CREATED);
    tokio::task::yield_now().await;
    let (theirs, own) = (run(&rig.ann, "echo").await, run(&rig.admin, "echo").await);
    assert_ne!(theirs["functionId"], own["functionId"]);
    // And when it goes, the name means the other's again, and is remembered as that.
    let id = own["functionId"].as_str().unwrap();
    rig.ask(Method::DELETE, &format!("/functions/{id}")).key(&rig.admin).send(String::new()).await.ok();
    tokio::task::yield_now().await;
    assert_eq!(run(&rig.admin, "echo").await["functionId"], theirs["functionId"]);
    let before = reads();
    run(&rig.admin, "echo").await;
    assert_eq!(reads(), before);
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_and_the_invocation_goes_on() {
    let rig = Rig::new().await;
    rig.echo().await;
    let reply = rig.run("\"wait\"").await;
    reply.refused(504, "WaitExpired");
    let path = format!("/invocations/{}", reply.header("x-request-id"));
    assert_eq!(rig.get(&rig.ann, &path).await.ok()["status"], "RUNNING");
    rig.runner.go_on.notify_one();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(rig.get(&rig.ann, &path).await.ok()["result"], "waited");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_its_call() {
    let rig = Rig::new().await;
    rig.echo().await;
    let call = tokio::time::timeout(Duration::from_millis(20), rig.run("\"wait\""));
    assert!(call.await.is_err());
    assert_eq!(rig.controller.calls_running(), 1);
    rig.runner.go_on.notify_one();
    rig.controller.calls.empty().await;
    assert_eq!(rig.world.records.lock().unwrap().values().next().unwrap().record.status, Status::Success);
}

#[tokio::test]
async fn more_calls_than_allowed_are_refused_at_once_and_so_are_all_while_draining() {
    let mut config = Config::default();
    config.http.inflight_max = 1;
    let rig = Arc::new(Rig::with(config).await);
    rig.echo().await;
    let first = tokio::spawn({
        let rig = rig.clone();
        async move { rig.run("\"wait\"").await.status }
    });
    while rig.runner.executed.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let refused = rig.run("1").await;
    refused.refused(503, "NoCapacity");
    assert_eq!(refused.header("retry-after"), "1");
    rig.controller.drain();
    rig.run("1").await.refused(503, "Draining");
    rig.runner.go_on.notify_one();
    assert_eq!(first.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn an_accepted_call_has_record_and_job() {
    let rig = Rig::new().await;
    rig.echo().await;
    let reply = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "true").send(run_body("1")).await;
    let body = reply.json();
    assert_eq!((reply.status, &body["status"]), (StatusCode::ACCEPTED, &"ACCEPTED".into()));
    let id = body["jobId"].as_str().unwrap();
    assert_eq!((body["requestId"].as_str(), reply.header("x-request-id")), (Some(id), id));
    assert_eq!(rig.get(&rig.ann, &format!("/status/{id}")).await.ok()["status"], "QUEUED");
    assert_eq!(rig.world.jobs.lock().unwrap()[0].invocation.to_string(), id);

    let cancelled = rig.ask(Method::DELETE, &format!("/invocations/{id}")).key(&rig.ann).send("").await;
    assert_eq!(cancelled.ok()["status"], "CANCELLED");
    let again = rig.ask(Method::DELETE, &format!("/invocations/{id}")).key(&rig.ann).send("").await;
    again.refused(409, "InvocationFinished");
}

#[tokio::test]
async fn one_key_is_one_invocation_and_one_answer() {
    let rig = Rig::new().await;
    rig.echo().await;
    for wish in ["false", "true"] {
        let ask = async |key: &str, input: &str| {
            let ask = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", wish);
            ask.header("idempotency-key", &format!("{key}-{wish}")).send(run_body(input)).await
        };
        let (first, repeat) = (ask("k", "1").await, ask("k", "1").await);
        assert!(first.status.is_success());
        assert_eq!((first.json(), first.status), (repeat.json(), repeat.status));
        assert_eq!(first.header("x-request-id"), repeat.header("x-request-id"));
        ask("k", "2").await.refused(422, "IdempotencyKeyReused");
        ask("two words", "2").await.refused(400, "InvalidRequest");
    }
    assert_eq!(rig.runner.executed.load(Ordering::Relaxed), 1);
    assert_eq!(rig.world.jobs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeat_waits_for_the_call_that_runs() {
    let rig = Arc::new(Rig::new().await);
    rig.echo().await;
    let ask = || {
        let rig = rig.clone();
        tokio::spawn(async move {
            let ask = rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", "k");
            ask.send(run_body("\"wait\"")).await.ok()
        })
    };
    let (first, second) = (ask(), ask());
    tokio::time::sleep(Duration::from_millis(20)).await;
    rig.runner.go_on.notify_one();
    assert_eq!(first.await.unwrap(), second.await.unwrap());
    assert_eq!(rig.runner.executed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_keyed_call_that_was_refused_or_lost_is_taken_over_by_its_repeat() {
    let rig = Rig::new().await;
    rig.echo().await;
    let ask = || rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", "k").send(run_body("\"full\""));
    let first = ask().await;
    first.refused(503, "NoCapacity");
    let second = ask().await;
    second.refused(503, "NoCapacity");
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(rig.runner.executed.load(Ordering::Relaxed), 2);
    assert_eq!(rig.world.records.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn unknown_and_expired_invocations_differ() {
    let rig = Rig::new().await;
    rig.get(&rig.ann, &format!("/status/{}", expired_id())).await.refused(410, "InvocationExpired");
    rig.get(&rig.ann, "/status/00000000-0000-0000-0000-000000000009").await.refused(404, "InvocationNotFound");
    rig.get(&rig.ann, "/invocations/nonsense").await.refused(404, "InvocationNotFound");
}

#[tokio::test]
async fn a_dead_letter_is_seen_and_replayed_once() {
    let rig = Rig::new().await;
    rig.echo().await;
    rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(run_body("[7]")).await;
    let job = rig.world.jobs.lock().unwrap().pop().unwrap();
    let id = job.invocation;
    let letter = DeadLetter { job, attempts: 3, reason: "it kept failing".into(), died_at: Timestamp(9) };
    rig.world.letters.lock().unwrap().insert(id, letter);

    assert_eq!(rig.get(&rig.ann, "/dead-letters").await.ok()["items"][0]["attempts"], 3);
    assert_eq!(rig.get(&rig.bob, "/dead-letters").await.ok()["items"].as_array().unwrap().len(), 0);
    let path = format!("/dead-letters/{id}");
    assert_eq!(rig.get(&rig.ann, &path).await.ok()["inputData"][0], 7);
    rig.get(&rig.bob, &path).await.refused(404, "DeadLetterNotFound");
    let replayed = rig.post(&rig.ann, &format!("{path}/replay"), "").await;
    let body = replayed.json();
    assert_eq!((replayed.status, body["replayOf"].as_str()), (StatusCode::ACCEPTED, Some(id.to_string().as_str())));
    rig.post(&rig.ann, &format!("{path}/replay"), "").await.refused(404, "DeadLetterNotFound");
    let record = rig.get(&rig.ann, &format!("/status/{}", body["jobId"].as_str().unwrap())).await.ok();
    assert_eq!(record["replayOf"], body["replayOf"]);
}

#[tokio::test]
async fn logs_list_and_show_whole_texts() {
    let rig = Rig::new().await;
    let function = rig.echo().await;
    rig.run("1").await.ok();
    let id = rig.run("\"raise\"").await.ok()["requestId"].as_str().unwrap().to_owned();
    {
        let mut records = rig.world.records.lock().unwrap();
        let mut stored = records[&id.parse().unwrap()].as_ref().clone();
        let mut printed = outcome(Status::Failed, "null");
        printed.stdout.text = "x".repeat(20_000);
        stored.record.finish(printed, Timestamp(7));
        records.insert(stored.record.request_id, Arc::new(stored));
    }
    let all = rig.get(&rig.ann, &format!("/functions/{function}/logs")).await.ok();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let failed = rig.get(&rig.ann, "/functions/echo/logs?status=failed&limit=5").await.ok();
    assert_eq!(failed["items"].as_array().unwrap().len(), 1);
    assert!(failed["items"][0]["stdout"].as_str().unwrap().len() < 9000);
    let whole = rig.get(&rig.ann, &format!("/functions/echo/logs/{id}")).await.ok();
    assert_eq!(whole["text"].as_str().unwrap().len(), 20_000);
    assert_eq!(rig.get(&rig.bob, "/logs").await.ok()["items"].as_array().unwrap().len(), 0);
    assert!(rig.get(&rig.ann, "/logs?limit=0").await.refused(400, "InvalidRequest").contains("1 to 1000"));
    rig.get(&rig.ann, "/logs?status=ERROR").await.refused(400, "InvalidRequest");
    rig.get(&rig.ann, "/logs?startTime=yesterday").await.refused(400, "InvalidRequest");
    // A log outlives its result.
    {
        let mut records = rig.world.records.lock().unwrap();
        let mut stored = records[&id.parse().unwrap()].as_ref().clone();
        stored.record.request_id = expired_id();
        records.insert(expired_id(), Arc::new(stored));
    }
    rig.get(&rig.ann, &format!("/status/{}", expired_id())).await.refused(410, "InvocationExpired");
    rig.get(&rig.ann, &format!("/functions/echo/logs/{}", expired_id())).await.ok();
    rig.get(&rig.bob, &format!("/functions/echo/logs/{}", expired_id())).await.refused(404, "InvocationNotFound");
    rig.get(&rig.ann, &format!("/functions/other/logs/{id}")).await.refused(404, "InvocationNotFound");
}
