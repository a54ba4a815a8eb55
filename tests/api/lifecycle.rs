//! A function's life as its owner sees it: upload, run, look, update, delete.

use http::Method;
use serde_json::json;

use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::multipart::Form;
use crate::support::platform::{Deployed, ECHO, inline, page, zipped};

#[tokio::test]
async fn a_function_lives_from_upload_to_deletion() {
    let daemon = Daemon::start().await;

    let form = Form::default().file("code.zip", &zip(&[("main.py", ECHO.as_bytes())]));
    let form = form.field("description", "says it again").field("envVars", r#"{"CITY":"Turin"}"#);
    let upload = form.upload(&daemon).header("x-function-name", "echo").header("x-runtime", "python");
    let answer = upload.header("x-memory-mb", "256").header("x-timeout-ms", "5000").send().await.expect(200);
    assert_eq!(answer["success"], true);
    let function = Deployed::from_answer(&answer);
    assert_eq!((function.name.as_str(), function.version), ("echo", 1));

    let record = daemon.call("echo", &json!({ "a": [1, 2.5, "ü", null, true] })).await;
    assert_eq!(record["result"], json!({ "a": [1, 2.5, "ü", null, true] }));
    assert_eq!(record["status"], "SUCCESS");

    let shown = daemon.get(&format!("/functions/{}", function.id)).send().await.expect(200);
    assert_eq!(shown["name"], "echo");
    assert_eq!(shown["memoryMb"], 256);
    assert_eq!(shown["timeoutMs"], 5000);
    assert_eq!(shown["description"], "says it again");
    let by_name = daemon.get("/functions/echo").send().await.expect(200);
    assert_eq!(by_name["functionId"], function.id.as_str());

    daemon.delete("/functions/echo").send().await.expect(200);
    daemon.get("/functions/echo").send().await.refused(404);
    daemon.run("echo", &json!(1)).send().await.refused(404);
    let record_id = record["requestId"].as_str().expect("an id");
    assert_eq!(daemon.status(record_id).await["status"], "SUCCESS", "the record outlives its function");

    let again = daemon.deploy_python("echo", ECHO).await;
    assert_ne!(again.id, function.id, "a new function, not the old one");
    assert_eq!(again.version, 1);
}

#[tokio::test]
async fn the_sync_answer_is_the_whole_record() {
    let daemon = Daemon::start().await;
    let function = daemon.deploy_python("echo", ECHO).await;
    let answer = daemon.run("echo", &json!({ "n": 1 })).send().await;
    let record = answer.expect(200);

    assert_eq!(record["functionId"], function.id.as_str());
    assert_eq!(record["functionName"], "echo");
    assert_eq!(record["version"], 1);
    assert_eq!(record["attempt"], 1);
    assert_eq!(record["allocatedMemoryMb"], 128);
    for name in ["stdout", "stderr"] {
        assert_eq!(record[name], "", "{name}");
    }
    for name in ["errorType", "errorMessage", "stackTrace", "exitCode"] {
        assert!(record[name].is_null(), "{name} in {record}");
    }
    // Right-sizing is for many calls to say: never one call's answer.
    for name in ["optimizationTip", "recommendedMemoryMb", "estimatedSavings", "llmTokenCount"] {
        assert!(record.as_object().is_some_and(|record| record.get(name) == Some(&json!(null))), "{name} in {record}");
    }
    for name in ["durationMs", "handlerDurationMs", "peakMemoryBytes", "cpuUs", "throttledUs", "diskRead", "diskWrite"]
    {
        assert!(record[name].is_number(), "{name} in {record}");
    }
    for name in ["queueMs", "acquireMs", "initMs", "handlerMs", "totalMs"] {
        assert!(record["timings"][name].is_number(), "timings.{name} in {record}");
    }
    assert_eq!((&record["networkRx"], &record["networkTx"]), (&json!(0), &json!(0)));
    assert!(record["outputFiles"].as_array().is_some_and(Vec::is_empty));
    assert!(record["workerId"].is_string());
    assert!(record["peakMemoryBytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{record}");
    assert!(["COLD", "PREWARMED"].contains(&record["startType"].as_str().unwrap_or_default()), "{record}");
    let times = ["createdAt", "startedAt", "finishedAt"].map(|name| record[name].as_str().expect(name));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(answer.header("x-request-id"), record["requestId"].as_str());
    assert_eq!(answer.header("x-faasd-function-error"), None);

    let second = daemon.call("echo", &json!(2)).await;
    assert_eq!(second["startType"], "WARM");
    assert_ne!(second["requestId"], record["requestId"]);
}

#[tokio::test]
async fn every_route_exists_below_api_as_well() {
    let daemon = Daemon::start().await;
    daemon.post("/api/functions", &inline("echo", "python", ECHO)).send().await.expect(201);
    let run = daemon.post("/api/run", &json!({ "name": "echo", "inputData": 7 })).send().await.expect(200);
    assert_eq!(run["result"], 7);
    let id = run["requestId"].as_str().expect("an id");
    for path in [
        "/health".to_owned(),
        "/ready".to_owned(),
        "/metrics".to_owned(),
        "/functions".to_owned(),
        "/functions/echo".to_owned(),
        format!("/status/{id}"),
        format!("/invocations/{id}"),
        "/functions/echo/logs".to_owned(),
        "/logs".to_owned(),
        "/workers".to_owned(),
        "/system/status".to_owned(),
        "/dead-letters".to_owned(),
        "/keys".to_owned(),
    ] {
        assert_eq!(daemon.get(&path).send().await.status, 200, "{path}");
        assert_eq!(daemon.get(&format!("/api{path}")).send().await.status, 200, "/api{path}");
    }
    daemon.get("/api/api/functions").send().await.refused(404);
}

#[tokio::test]
async fn a_name_already_there_is_a_conflict_for_create_and_a_version_for_upload() {
    let daemon = Daemon::start().await;
    let first = daemon.deploy_python("echo", ECHO).await;
    daemon.post("/functions", &inline("echo", "python", ECHO)).send().await.refused(409);

    let form = Form::default().file("main.py", b"def handler(event, context):\n    return 'second'\n");
    let form = form.field("x-function-name", "echo").field("x-runtime", "python");
    let second = Deployed::from_answer(&form.upload(&daemon).send().await.expect(200));
    assert_eq!((second.id.as_str(), second.version), (first.id.as_str(), 2));
    assert_eq!(daemon.result("echo", &json!(1)).await, "second");
}

#[tokio::test]
async fn an_update_serves_the_next_call_and_leaves_the_running_one_alone() {
    let daemon = Daemon::start().await;
    let slow = "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return 'old'\n";
    let function = daemon.deploy_python("f", slow).await;
    let running = daemon.submit("f", &json!({})).await;
    daemon.wait_running(&running).await;

    let new = json!({ "runtime": "python", "code": { "inline": "def handler(event, context):\n    return 'new'\n" } });
    let answer =
        daemon.request(Method::PUT, &format!("/functions/{}", function.id)).json(&new).send().await.expect(200);
    assert_eq!(answer["version"], 2);

    let record = daemon.call("f", &json!({})).await;
    assert_eq!((&record["result"], &record["version"]), (&json!("new"), &json!(2)));
    let old = daemon.wait_final(&running).await;
    assert_eq!((&old["result"], &old["version"]), (&json!("old"), &json!(1)));
}

/// What was accepted before an update or a deletion runs on what it was accepted for, even if it had to wait.
#[tokio::test]
async fn accepted_calls_that_wait_outlive_an_update_and_a_deletion() {
    let daemon = Daemon::with("POOL__CONCURRENCY_MAX", 1).start().await;
    let slow = "import time\ndef handler(event, context):\n    time.sleep(0.4)\n    return 'old'\n";
    daemon.deploy_python("f", slow).await;
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(daemon.submit("f", &json!({})).await);
    }
    daemon.wait_running(&accepted[0]).await;
    let new = json!({ "code": { "inline": "def handler(event, context):\n    return 'new'\n" } });
    daemon.request(Method::PATCH, "/functions/f").json(&new).send().await.expect(200);
    let last = daemon.submit("f", &json!({})).await;
    daemon.delete("/functions/f").send().await.expect(200);
    daemon.run("f", &json!({})).send().await.refused(404);
    for id in &accepted {
        let record = daemon.wait_final(id).await;
        assert_eq!((&record["result"], &record["version"]), (&json!("old"), &json!(1)), "{record}");
    }
    let record = daemon.wait_final(&last).await;
    assert_eq!((&record["result"], &record["version"]), (&json!("new"), &json!(2)), "{record}");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let daemon = Daemon::start().await;
    let settings = json!({ "description": "d", "env": { "A": "1" }, "timeoutMs": 4000, "memoryMb": 192 });
    let source = "import os\ndef handler(event, context):\n    return [os.environ.get('A'), context.memory_mb]\n";
    daemon.deploy_python_with("f", source, settings).await;
    let answer =
        daemon.request(Method::PATCH, "/functions/f").json(&json!({ "memoryMb": 256 })).send().await.expect(200);
    assert_eq!(answer["version"], 2);
    assert_eq!(answer["memoryMb"], 256);
    assert_eq!(answer["timeoutMs"], 4000);
    assert_eq!(answer["description"], "d");
    assert_eq!(daemon.result("f", &json!({})).await, json!(["1", 256]));
}

#[tokio::test]
async fn an_update_of_nothing_makes_no_phantom() {
    let daemon = Daemon::start().await;
    for method in [Method::PUT, Method::PATCH] {
        daemon.request(method, "/functions/ghost").json(&json!({ "memoryMb": 256 })).send().await.refused(404);
    }
    daemon.delete("/functions/ghost").send().await.refused(404);
    assert_eq!(daemon.list_all("/functions", 10).await.len(), 0);
}

#[tokio::test]
async fn a_deletion_lets_the_running_call_finish() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return 'done'\n")
        .await;
    let running = daemon.submit("f", &json!({})).await;
    daemon.wait_running(&running).await;
    daemon.delete("/functions/f").send().await.expect(200);
    assert_eq!(daemon.wait_final(&running).await["result"], "done");
}

#[tokio::test]
async fn functions_are_listed_page_by_page() {
    let daemon = Daemon::start().await;
    let archive = zip(&[("main.py", ECHO.as_bytes())]);
    let names: Vec<String> = (0..23).map(|i| format!("f-{i:02}")).collect();
    for name in &names {
        daemon.deploy(zipped(name, "python", &archive)).await;
    }
    let listed = daemon.list_all("/functions", 5).await;
    let listed: Vec<_> = listed.iter().map(|function| function["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(listed, names, "each once, in order");

    let (_, cursor) = page(&daemon.get("/functions?limit=23").send().await.expect(200));
    assert_eq!(cursor, None, "a full last page has no next one");
    for bad in ["limit=0", "limit=-1", "limit=many", "limit=100000000", "cursor=%00%ff"] {
        daemon.get(&format!("/functions?{bad}")).send().await.refused(400);
    }
}
