//! The ways in which code comes in.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::support::archive::{zip, zip_with_modes};
use crate::support::daemon::Daemon;
use crate::support::multipart::Form;
use crate::support::platform::{Deployed, ECHO, zipped};

const SECRET: &str = "hunter2-and-more";

#[tokio::test]
async fn a_single_source_file_is_a_function() {
    let daemon = Daemon::start().await;
    for (name, file, runtime, source) in [
        ("py", "anything.py", "python3.12", ECHO),
        ("js", "thing.js", "nodejs20.x", "exports.handler = async (event) => event;"),
        ("mjs", "thing.mjs", "nodejs", "export const handler = async (event) => event;"),
    ] {
        let form = Form::default().file(file, source.as_bytes());
        let form = form.field("x-function-name", name).field("x-runtime", runtime);
        let function = Deployed::from_answer(&form.upload(&daemon).send().await.expect(200));
        assert_eq!(function.name, name);
        assert_eq!(daemon.result(name, &json!({ "k": name })).await, json!({ "k": name }), "{name}");
    }
}

#[tokio::test]
async fn headers_and_fields_say_the_same() {
    let daemon = Daemon::start().await;
    let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
    let form = form.field("x-memory-mb", "192").field("x-timeout-ms", "7000").file("main.py", ECHO.as_bytes());
    form.upload(&daemon).send().await.expect(200);
    let shown = daemon.get("/functions/f").send().await.expect(200);
    assert_eq!((&shown["memoryMb"], &shown["timeoutMs"]), (&json!(192), &json!(7000)));
}

#[tokio::test]
async fn what_an_upload_lacks_is_named() {
    let daemon = Daemon::start().await;
    let file = || Form::default().file("main.py", ECHO.as_bytes());
    for (form, missing) in [
        (file().field("x-runtime", "python"), "name"),
        (file().field("x-function-name", "f"), "runtime"),
        (Form::default().field("x-function-name", "f").field("x-runtime", "python"), "file"),
    ] {
        let (sentence, _) = form.upload(&daemon).send().await.refused(400);
        assert!(sentence.contains(missing), "{missing}: {sentence}");
    }
    let form = file().field("x-function-name", "f").field("x-runtime", "python").field("envVars", "not json");
    let (sentence, _) = form.upload(&daemon).send().await.refused(400);
    assert!(sentence.contains("envVars"), "{sentence}");
}

#[tokio::test]
async fn an_archive_brings_its_other_files_along() {
    let daemon = Daemon::start().await;
    let main = b"import lib.words, os\ndef handler(event, context):\n    \
        return [lib.words.WORD, open('/var/task/data/n.txt').read(), os.access('/var/task/run.sh', os.X_OK), os.getcwd()]\n";
    let archive = zip_with_modes([
        ("main.py", 0o644, main.as_slice()),
        ("lib/__init__.py", 0o644, b""),
        ("lib/words.py", 0o600, b"WORD = 'hello'\n"),
        ("data/n.txt", 0o600, b"42"),
        ("run.sh", 0o755, b"#!/bin/sh\n"),
    ]);
    daemon.deploy(zipped("f", "python", &archive)).await;
    assert_eq!(daemon.result("f", &json!({})).await, json!(["hello", "42", true, "/var/task"]));
}

#[tokio::test]
async fn base64_that_is_none_is_refused() {
    let daemon = Daemon::start().await;
    let definition = json!({ "name": "f", "runtime": "python", "code": { "zipBase64": "@@@" } });
    let (sentence, _) = daemon.post("/functions", &definition).send().await.refused(400);
    assert!(sentence.contains("zipBase64"), "{sentence}");
    let both = json!({ "name": "f", "runtime": "python", "code": {
        "inline": ECHO, "zipBase64": BASE64_STANDARD.encode(zip(&[("main.py", ECHO.as_bytes())])) } });
    daemon.post("/functions", &both).send().await.refused(400);
    let neither = json!({ "name": "f", "runtime": "python", "code": {} });
    daemon.post("/functions", &neither).send().await.refused(400);
}

#[tokio::test]
async fn values_of_the_environment_are_shown_nowhere() {
    let daemon = Daemon::with("LOG__LEVEL", "debug").start().await;
    let source = "import os\ndef handler(event, context):\n    return len(os.environ['TOKEN'])\n";
    let function = daemon.deploy_python_with("f", source, json!({ "env": { "TOKEN": SECRET } })).await;
    assert_eq!(daemon.result("f", &json!({})).await, SECRET.len());

    let shown = daemon.get("/functions/f").send().await;
    assert!(shown.text().contains("TOKEN"), "the name is shown: {}", shown.text());
    for path in ["/functions", "/functions/f", "/logs", "/functions/f/logs", "/metrics", "/system/status", "/workers"] {
        let answer = daemon.get(path).send().await;
        assert!(!answer.text().contains(SECRET), "{path} shows it");
    }
    let patch = daemon.request(http::Method::PATCH, &format!("/functions/{}", function.id));
    let patched = patch.json(&json!({ "description": "new" })).send().await;
    assert!(!patched.text().contains(SECRET));
    assert!(!daemon.log().contains(SECRET), "the daemon's log shows it");
}
