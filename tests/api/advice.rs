//! What calls say about their function's memory, and what is done about it.

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

#[tokio::test]
async fn a_function_with_too_much_memory_is_told_so_after_enough_calls_and_can_follow() {
    let daemon = Daemon::start().await;
    let code = json!({ "inline": ECHO });
    let body = json!({ "name": "large", "runtime": "python", "code": code, "memoryMb": 1024 });
    daemon.post("/functions", &body).send().await.expect(201);
    let first = daemon.call("large", &json!(1)).await;
    assert!(first["recommendedMemoryMb"].is_null() && first["optimizationTip"].is_null(), "one call says nothing");
    assert!(daemon.get("/functions/large").send().await.expect(200)["advice"].is_null());
    let mut last = first;
    for n in 0..40 {
        last = daemon.call("large", &json!(n)).await;
    }
    let recommended = last["recommendedMemoryMb"].as_u64().expect("a recommendation");
    assert!((64..=512).contains(&recommended), "{recommended}");
    let peak = last["peakMemoryBytes"].as_u64().expect("a peak");
    assert!(recommended * 1024 * 1024 > peak, "{recommended} MB for {peak} bytes");
    assert!(last["optimizationTip"].as_str().is_some_and(|tip| tip.contains("1024 MB")), "{last}");
    assert!(last["estimatedSavings"].as_str().is_some_and(|saving| saving.contains("thousand calls")), "{last}");
    let advice = daemon.get("/functions/large").send().await.expect(200)["advice"].clone();
    assert_eq!((&advice["recommendedMemoryMb"], &advice["reason"]), (&last["recommendedMemoryMb"], &json!("waste")));

    let resized = daemon
        .request(http::Method::PATCH, "/functions/large")
        .json(&json!({ "memoryMb": recommended }))
        .send()
        .await
        .expect(200);
    assert_eq!((&resized["version"], &resized["memoryMb"]), (&json!(2), &json!(recommended)));
    let next = daemon.call("large", &json!(1)).await;
    assert_eq!((&next["status"], &next["recommendedMemoryMb"]), (&json!("SUCCESS"), &json!(null)));
}
