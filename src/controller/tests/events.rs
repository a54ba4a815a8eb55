//! Event streams: live, resumed, of finished and of queued invocations.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Method, StatusCode};

use super::client::{events, read_until, run_body};
use super::rig::{Rig, outcome};
use crate::controller::feed::RESULT_ID;
use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::outcome::Status;
use crate::domain::time::Timestamp;
use crate::ports::bus::{Bus, News};
use crate::ports::executor::LogSinks;
use crate::ports::invocations::InvocationStore;
use crate::ports::sandbox::Stream;

fn result() -> String {
    format!("{RESULT_ID} result")
}

async fn follow(rig: &Rig, id: &str, last: &str) -> axum::response::Response {
    let ask = rig.ask(Method::GET, &format!("/invocations/{id}/events")).key(&rig.ann);
    ask.header("last-event-id", last).open("").await
}

#[tokio::test]
async fn a_stream_tells_as_it_happens_and_can_be_resumed() {
    let rig = Arc::new(Rig::new().await);
    rig.echo().await;
    let ask = rig.ask(Method::POST, "/run").key(&rig.ann).header("accept", "text/event-stream");
    let response = ask.open(Body::from(run_body("\"wait\""))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let text = read_until(response, "before").await;
    assert_eq!(events(&text), ["1 queued", "2 started", "3 log"]);
    assert!(text.contains(r#"data: {"line":"before","stream":"stdout"}"#), "{text}");

    // The client is gone; the call runs. Another one takes up where the first left off.
    let resumed = follow(&rig, &id, "3").await;
    rig.runner.go_on.notify_one();
    let text = read_until(resumed, "").await;
    assert_eq!(events(&text), ["4 log".to_owned(), result()]);
    assert!(text.contains(r#""result":"waited""#));

    // After the end: from anywhere, and not at all once the end was heard.
    assert_eq!(events(&read_until(follow(&rig, &id, "0").await, "").await).len(), 5);
    let over = follow(&rig, &id, &RESULT_ID.to_string()).await;
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
    let odd = rig.ask(Method::GET, &format!("/invocations/{id}/events")).key(&rig.ann);
    odd.header("last-event-id", "x").send("").await.refused(400, "InvalidRequest");
    let other = rig.ask(Method::GET, &format!("/invocations/{id}/events")).key(&rig.bob);
    other.send("").await.refused(404, "InvocationNotFound");
}

#[tokio::test]
async fn a_finished_call_that_nobody_followed_is_told_from_its_record() {
    let rig = Rig::new().await;
    rig.echo().await;
    let id = rig.run("1").await.ok()["requestId"].as_str().unwrap().to_owned();
    assert_eq!(
        events(&read_until(follow(&rig, &id, "").await, "").await),
        ["1 queued".into(), "2 started".into(), result()]
    );
    assert_eq!(events(&read_until(follow(&rig, &id, "17").await, "").await), [result()]);
}

#[tokio::test]
async fn a_stream_of_a_refused_call_ends_with_an_error() {
    let rig = Rig::new().await;
    rig.echo().await;
    let ask = rig.ask(Method::POST, "/run").key(&rig.ann).header("accept", "text/event-stream");
    let text = read_until(ask.open(Body::from(run_body("\"full\""))).await, "").await;
    assert!(text.contains("event: error") && text.contains("NoCapacity"), "{text}");
}

#[tokio::test]
async fn an_accepted_call_is_followed_through_the_worker_and_the_bus() {
    let rig = Arc::new(Rig::new().await);
    rig.echo().await;
    let reply = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(run_body("1")).await;
    let id = reply.json()["jobId"].as_str().unwrap().to_owned();
    let following = tokio::spawn({
        let (rig, id) = (rig.clone(), id.clone());
        async move { read_until(follow(&rig, &id, "0").await, "").await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let sink = rig.controller.sink_for(id.parse().unwrap(), 1).unwrap();
    sink.line(Stream::Stdout, "hello");
    finish(&rig, id.parse().unwrap()).await;
    rig.bus.publish(News::Finished(id.parse().unwrap()));
    let text = tokio::time::timeout(Duration::from_millis(500), following).await.expect("news wake it").unwrap();
    assert_eq!(events(&text), ["1 queued".into(), "2 started".into(), "3 log".into(), result()]);
}

#[tokio::test(start_paused = true)]
async fn a_call_at_another_worker_is_heard_from_there() {
    let rig = Arc::new(Rig::new().await);
    rig.echo().await;
    let reply = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(run_body("1")).await;
    let id: InvocationId = reply.json()["jobId"].as_str().unwrap().parse().unwrap();
    rig.runner.afar.store(true, Ordering::Relaxed);
    rig.world.start(id, 1, WorkerId(uuid::Uuid::nil()), Timestamp(1)).await.unwrap();
    // The first time nobody answers there; it is asked again.
    let text = read_until(follow(&rig, &id.to_string(), "0").await, "from afar").await;
    assert_eq!(events(&text), ["1 queued", "2 started", "3 log"]);
    let others = [0, 3].map(|last: u32| {
        let rig = rig.clone();
        tokio::spawn(async move { read_until(follow(&rig, &id.to_string(), &last.to_string()).await, "").await })
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    // News of the end are faster than the last line.
    finish(&rig, id).await;
    rig.bus.publish(News::Finished(id));
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.runner.go_on.notify_one();
    let [all, rest] = futures_util::future::join_all(others).await.try_into().unwrap();
    assert_eq!(
        events(&all.unwrap()),
        ["1 queued".into(), "2 started".into(), "3 log".into(), "4 log".into(), result()]
    );
    let rest = rest.unwrap();
    assert_eq!(events(&rest), ["4 log".to_owned(), result()]);
    assert!(rest.contains("last words"));
    assert_eq!(rig.runner.executed.load(Ordering::Relaxed), 2, "one stream for all who follow");
}

#[tokio::test(start_paused = true)]
async fn lost_news_lose_no_result() {
    let rig = Arc::new(Rig::new().await);
    rig.echo().await;
    let reply = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(run_body("1")).await;
    let id: InvocationId = reply.json()["jobId"].as_str().unwrap().parse().unwrap();
    let following = tokio::spawn({
        let rig = rig.clone();
        async move { read_until(follow(&rig, &id.to_string(), "0").await, "").await }
    });
    tokio::time::sleep(Duration::from_secs(40)).await;
    rig.world.start(id, 1, WorkerId(uuid::Uuid::nil()), Timestamp(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    finish(&rig, id).await;
    let text = following.await.unwrap();
    assert!(text.contains(":\n\n"), "a silent stream is kept alive");
    assert_eq!(events(&text), ["1 queued".into(), "2 started".into(), result()]);
}

async fn finish(rig: &Rig, id: InvocationId) {
    let mut stored = rig.world.records.lock().unwrap()[&id].as_ref().clone();
    stored.record.finish(outcome(Status::Success, "1"), Timestamp(2));
    assert!(rig.world.finish(Arc::new(stored)).await.unwrap());
}
