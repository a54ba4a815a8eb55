//! Advice on memory: where it is shown, and that it is followed where a function asks for it, and there only.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::rig::Rig;
use crate::domain::audit::{Action, Outcome};
use crate::domain::ids::{FunctionId, VersionKey};
use crate::domain::policy::advice::{Advice, Reason};

async fn function(rig: &Rig, name: &str, auto_memory: bool) -> VersionKey {
    let code = json!({ "inline": "x" });
    let body = json!({ "name": name, "runtime": "python", "code": code, "memoryMb": 512, "autoMemory": auto_memory });
    let made = rig.ask(Method::POST, "/functions").key(&rig.ann).send(body.to_string()).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!(made["autoMemory"], auto_memory);
    VersionKey { function: serde_json::from_value::<FunctionId>(made["functionId"].clone()).unwrap(), number: 1 }
}

async fn version(rig: &Rig, name: &str) -> (u64, u64) {
    let shown = rig.get(&rig.ann, &format!("/functions/{name}")).await.ok();
    (shown["version"].as_u64().unwrap(), shown["memoryMb"].as_u64().unwrap())
}

#[tokio::test]
async fn a_function_is_shown_with_what_its_calls_say_about_its_memory() {
    let rig = Rig::new().await;
    function(&rig, "f", false).await;
    assert!(rig.get(&rig.ann, "/functions/f").await.ok()["advice"].is_null());
    *rig.runner.advice.lock().unwrap() = Some(Arc::new(Advice {
        recommended_memory_mb: 64,
        reason: Reason::Waste,
        tip: "a sentence".into(),
        estimated_savings: Some("some".into()),
        saved_gb_s_per_thousand_calls: 1.5,
        calls: 32,
    }));
    let advice = rig.get(&rig.ann, "/functions/f").await.ok()["advice"].clone();
    let expected = json!({
        "recommendedMemoryMb": 64, "reason": "waste", "tip": "a sentence", "estimatedSavings": "some",
        "savedGbSPerThousandCalls": 1.5, "calls": 32,
    });
    assert_eq!(advice, expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_resized_while_the_audit_log_can_t_be_written() {
    let rig = Rig::new().await;
    let asks = function(&rig, "asks", true).await;
    *rig.runner.resizes.lock().unwrap() = vec![(asks, 128)];
    rig.world.audit_broken.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4000)).await;
    assert_eq!(version(&rig, "asks").await, (1, 512));
    rig.world.audit_broken.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(version(&rig, "asks").await, (2, 128));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_asks_for_it_is_resized_once_an_hour_at_most() {
    let rig = Rig::new().await;
    let (asks, does_not) = (function(&rig, "asks", true).await, function(&rig, "silent", false).await);
    *rig.runner.resizes.lock().unwrap() = vec![(asks, 128), (does_not, 128)];
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(version(&rig, "asks").await, (1, 512), "its version is young");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(version(&rig, "asks").await, (2, 128));
    assert_eq!(version(&rig, "silent").await, (1, 512));
    assert!(rig.runner.retired.lock().unwrap().contains(&asks));
    let last = rig.world.entries.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.action, last.outcome), (Action::FunctionUpdate, Outcome::Done));
    assert_eq!(
        (last.object_name.as_deref(), last.object_owner.as_deref(), last.version),
        (Some("asks"), Some("ann"), Some(2))
    );
    assert_eq!(
        (last.owner, last.detail.get("autoMemoryMb").map(String::as_str)),
        (None, Some("128")),
        "nobody asked just then"
    );
    // A worker that still speaks of the old version changes nothing, and neither does a newer one within the hour.
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(version(&rig, "asks").await, (2, 128));
    *rig.runner.resizes.lock().unwrap() = vec![(VersionKey { number: 2, ..asks }, 96)];
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(version(&rig, "asks").await, (3, 96));
    *rig.runner.resizes.lock().unwrap() = vec![(VersionKey { number: 3, ..asks }, 64)];
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(version(&rig, "asks").await, (3, 96));
}
