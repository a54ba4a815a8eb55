//! Calls that nobody runs any more come to an end all the same.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::client::run_body;
use super::rig::Rig;
use crate::config::{Backend, Config};
use crate::domain::ids::{InvocationId, WorkerId};
use crate::domain::invocation::StoredRecord;
use crate::domain::outcome::{ErrorType, Status};
use crate::ports::invocations::InvocationStore;

/// Three times what a caller waits by default: the function's time, and what a wait has beyond it.
fn overdue(config: &Config) -> Duration {
    3 * Duration::from_millis(config.limits.timeout_ms_default + config.http.sync_wait_extra_ms)
}

/// Open as another controller left it.
async fn left_open(rig: &Rig) -> InvocationId {
    let ask = rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", "k");
    let record = ask.send(run_body("1")).await.ok();
    let id: InvocationId = record["requestId"].as_str().unwrap().parse().unwrap();
    let mut records = rig.world.records.lock().unwrap();
    let stored = records.get_mut(&id).unwrap();
    let mut own = StoredRecord::clone(stored);
    (own.record.status, own.record.finished_at, own.record.result) = (Status::Queued, None, None);
    *stored = Arc::new(own);
    id
}

fn fleet() -> Config {
    Config { backend: Backend::Aws, ..Config::default() }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_controller_is_gone_fails_when_its_time_is_over() {
    let rig = Rig::with(fleet()).await;
    rig.echo().await;
    let id = left_open(&rig).await;
    tokio::time::sleep(overdue(&fleet()) - Duration::from_secs(1)).await;
    assert_eq!(rig.controller.end_abandoned().await.unwrap(), 0, "it may still run");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.controller.end_abandoned().await.unwrap(), 1);
    let record = rig.world.records.lock().unwrap()[&id].record.clone();
    assert_eq!((record.status, record.error_type), (Status::Failed, Some(ErrorType::PlatformError)));
    assert!(record.error_message.unwrap().contains("send it again"));
    assert_eq!(rig.controller.end_abandoned().await.unwrap(), 0, "once");
    let again = rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", "k").send(run_body("1")).await;
    assert_eq!(again.ok()["status"], "FAILED", "one key, one answer");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_taken_over_goes_on() {
    let rig = Rig::with(fleet()).await;
    rig.echo().await;
    let id = left_open(&rig).await;
    tokio::time::sleep(overdue(&fleet())).await;
    rig.world.start(id, 2, WorkerId(uuid::Uuid::nil()), rig.controller.now()).await.unwrap();
    tokio::time::sleep(overdue(&fleet()) - Duration::from_secs(1)).await;
    assert_eq!(rig.controller.end_abandoned().await.unwrap(), 0, "its time counts from its last start");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_runs_here_is_left_alone() {
    let rig = Rig::with(fleet()).await;
    rig.echo().await;
    let call = rig.ask(Method::POST, "/run").key(&rig.ann).header("idempotency-key", "k").send(run_body("\"wait\""));
    tokio::pin!(call);
    let long = overdue(&fleet()) * 2;
    // Its answer is long overdue; nothing here ends it.
    let waited = tokio::time::timeout(Duration::from_millis(1), &mut call).await;
    assert!(waited.is_err());
    tokio::time::sleep(long).await;
    assert_eq!(rig.controller.end_abandoned().await.unwrap(), 0);
}
