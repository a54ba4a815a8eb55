//! Records of calls whose outputs are still on their way when the caller is answered.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::client::run_body;
use super::rig::{Rig, output_file};
use crate::domain::outcome::Lost;

const A_WHILE: Duration = Duration::from_secs(5);

impl Rig {
    fn on_its_way(&self) -> oneshot::Sender<Option<Vec<Lost>>> {
        let (told, storing) = oneshot::channel();
        *self.runner.storing.lock().unwrap() = Some(storing);
        told
    }
}

fn named(record: &Value) -> usize {
    record["outputFiles"].as_array().unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn the_caller_is_answered_at_once_and_the_record_is_there_when_its_outputs_are() {
    let rig = Rig::new().await;
    rig.echo().await;
    let told = rig.on_its_way();
    let answer = rig.run("\"file\"").await.ok();
    assert_eq!((&answer["status"], named(&answer)), (&json!("SUCCESS"), 1));
    let path = format!("/invocations/{}", answer["requestId"].as_str().unwrap());
    let asked = rig.get(&rig.ann, &path);
    tokio::pin!(asked);
    assert!(tokio::time::timeout(A_WHILE, &mut asked).await.is_err(), "nobody reads of what is not there");
    assert!(rig.world.records.lock().unwrap().is_empty());
    told.send(Some(vec![])).unwrap();
    assert_eq!(asked.await.ok(), answer);
    assert_eq!(rig.get(&rig.ann, &path).await.ok(), answer);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_named_no_more_and_told() {
    let rig = Rig::new().await;
    rig.echo().await;
    let lost = Lost { sha256: output_file().sha256, why: "full".to_owned() };
    // Where its worker is lost too, each is looked for, and is not there.
    for word in [Some(vec![lost]), None] {
        let told = rig.on_its_way();
        let answer = rig.run("\"file\"").await.ok();
        told.send(word).unwrap();
        let record = rig.get(&rig.ann, &format!("/status/{}", answer["requestId"].as_str().unwrap())).await.ok();
        assert_eq!((&record["status"], named(&record)), (&json!("SUCCESS"), 0), "how it ended stands");
        assert!(record["stderr"].as_str().unwrap().contains("a.txt could not be stored"), "{record}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_given_again_waits_for_its_outputs() {
    let rig = Rig::new().await;
    rig.echo().await;
    let ask = |key: &'static str| {
        rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", key).send(run_body("\"file\""))
    };
    let told = rig.on_its_way();
    let asked = ask("a");
    tokio::pin!(asked);
    assert!(tokio::time::timeout(A_WHILE, &mut asked).await.is_err());
    told.send(Some(vec![])).unwrap();
    let answer = asked.await.ok();
    assert_eq!((named(&answer), ask("a").await.ok()), (1, answer));
    let told = rig.on_its_way();
    told.send(None).unwrap();
    let failed = ask("b").await.ok();
    assert_eq!((&failed["status"], &failed["errorType"]), (&json!("FAILED"), &json!("PlatformError")));
    assert_eq!((named(&failed), ask("b").await.ok()), (0, failed));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_daemon_waits_for_them() {
    let rig = Rig::new().await;
    rig.echo().await;
    let told = rig.on_its_way();
    rig.run("\"file\"").await.ok();
    let controller = rig.controller.clone();
    let ended = tokio::spawn(async move { controller.steps.empty().await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!ended.is_finished());
    told.send(Some(vec![])).unwrap();
    ended.await.unwrap();
    assert_eq!(rig.world.records.lock().unwrap().len(), 1);
}
