//! Upload and `/functions`: versions, and what bad input gets.

use std::sync::atomic::Ordering;

use http::{Method, StatusCode};

use super::client::Reply;
use super::rig::Rig;
use crate::config::{Backend, Config};

const BOUNDARY: &str = "frontier";

fn part(name: &str, file_name: Option<&str>, value: &str) -> String {
    let file = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
}

async fn upload_with(rig: &Rig, headers: &[(&str, &str)], parts: &[String]) -> Reply {
    let mut ask = rig.ask(Method::POST, "/upload").key(&rig.ann);
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    let body = format!("{}--{BOUNDARY}--\r\n", parts.concat());
    ask.header("content-type", &format!("multipart/form-data; boundary={BOUNDARY}")).send(body).await
}

async fn upload(rig: &Rig, parts: &[String]) -> Reply {
    upload_with(rig, &[("x-function-name", "up"), ("x-runtime", "python3.12")], parts).await
}

#[tokio::test]
async fn an_upload_makes_a_function_and_then_its_next_version() {
    let rig = Rig::new().await;
    let parts = [part("file", Some("main.py"), "def handler(e): return e"), part("envVars", None, r#"{"A": "b"}"#)];
    let first = upload(&rig, &parts).await.ok();
    assert_eq!((&first["success"], &first["version"], &first["runtime"]), (&true.into(), &1.into(), &"python".into()));
    assert_eq!(first["envNames"][0], "A");
    let second = upload(&rig, &[part("file", Some("a.zip"), "PK two"), part("memoryMb", None, "256")]).await.ok();
    assert_eq!((&second["functionId"], &second["version"]), (&first["functionId"], &2.into()));
    assert_eq!((&second["memoryMb"], &second["envNames"][0]), (&256.into(), &"A".into()));
    assert_eq!(rig.runner.retired.lock().unwrap()[0].number, 1);
    let versions = rig.get(&rig.ann, "/functions/up/versions").await.ok();
    assert_eq!((&versions["items"][0]["version"], &versions["items"][1]["memoryMb"]), (&2.into(), &128.into()));
}

#[tokio::test]
async fn a_bad_upload_says_what_is_wrong() {
    let rig = Rig::new().await;
    let code = part("file", Some("main.py"), "x");
    let wrong = async |field: &str, value: &str| {
        upload(&rig, &[code.clone(), part(field, None, value)]).await.refused(400, "InvalidRequest")
    };
    assert!(wrong("memoryMb", "63").await.contains("from 64 to 10240, not 63"));
    assert!(wrong("timeoutMs", "soon").await.contains("\"soon\""));
    assert!(wrong("runtime", "ruby").await.contains("\"ruby\""));
    let refusal = wrong("envVars", r#"{"A": 5318}"#).await;
    assert!(refusal.contains("value of A") && !refusal.contains("5318"), "{refusal}");
    assert!(wrong("envVars", r#"{"A": }"#).await.contains("line 1 column"));
    assert!(wrong("envVars", r#"{"JOB_ID": "5"}"#).await.contains("JOB_ID"));
    assert!(wrong("colour", "red").await.contains("\"colour\""));
    assert!(wrong("name", "a b").await.contains("\"a b\""));
    assert!(upload(&rig, &[]).await.refused(400, "InvalidRequest").contains("named file"));
    assert!(
        upload_with(&rig, &[], std::slice::from_ref(&code))
            .await
            .refused(400, "InvalidRequest")
            .contains("x-function-name")
    );
    upload(&rig, &[code.clone(), code.clone()]).await.refused(400, "InvalidRequest");
    for (code, status, name) in
        [("", 422, "InvalidPackage"), ("PK bad", 422, "InvalidPackage"), ("PK bomb", 413, "PayloadTooLarge")]
    {
        upload(&rig, &[part("file", Some("main.py"), code)]).await.refused(status, name);
    }
    let not_zip = upload(&rig, &[part("file", Some("code.zip"), "hello")]).await.refused(422, "InvalidPackage");
    assert!(not_zip.contains("not a zip"));

    let headers = [("content-type", "application/json")];
    let mut ask = rig.ask(Method::POST, "/upload").key(&rig.ann);
    for (name, value) in headers {
        ask = ask.header(name, value);
    }
    ask.send("{}").await.refused(415, "UnsupportedMediaType");
    let ask = rig.ask(Method::POST, "/upload").key(&rig.ann);
    let ask = ask.header("content-type", "multipart/form-data; boundary=frontier").header("x-function-name", "up");
    ask.send(code).await.refused(400, "IncompleteBody");
    assert_eq!(rig.get(&rig.ann, "/functions").await.ok()["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn an_upload_larger_than_the_limit_is_refused_while_it_is_read() {
    let mut config = Config::default();
    config.limits.zip_bytes = 1000;
    let rig = Rig::with(config).await;
    upload(&rig, &[part("file", Some("main.py"), &"x".repeat(997))]).await.ok();
    upload(&rig, &[part("file", Some("main.py"), &"x".repeat(1001))]).await.refused(413, "PayloadTooLarge");
    upload(&rig, &[part("file", Some("main.py"), &"x".repeat(3_000_000))]).await.refused(413, "PayloadTooLarge");
}

#[tokio::test]
async fn functions_are_created_changed_replaced_and_deleted() {
    let rig = Rig::new().await;
    let id = rig.echo().await;
    let body = r#"{"name": "echo", "runtime": "python", "code": {"inline": "x"}}"#;
    rig.post(&rig.ann, "/functions", body).await.refused(409, "FunctionExists");

    let change = |method: Method, body: &'static str| rig.ask(method, "/functions/echo").key(&rig.ann).send(body);
    let changed = change(Method::PATCH, r#"{"memoryMb": 512, "env": {"TOKEN": "s3cret"}}"#).await;
    assert!(!String::from_utf8_lossy(&changed.body).contains("s3cret"));
    let changed = changed.ok();
    assert_eq!(
        (&changed["version"], &changed["memoryMb"], &changed["timeoutMs"]),
        (&2.into(), &512.into(), &30_000.into())
    );
    change(Method::PUT, r#"{"runtime": "python"}"#).await.refused(400, "InvalidRequest");
    let replaced = change(Method::PUT, r#"{"runtime": "nodejs", "code": {"zipBase64": "UEsgeg=="}}"#).await.ok();
    assert_eq!(
        (&replaced["version"], &replaced["memoryMb"], &replaced["envNames"]),
        (&3.into(), &128.into(), &serde_json::json!([]))
    );
    change(Method::PATCH, r#"{"name": "other"}"#).await.refused(400, "InvalidRequest");
    assert!(change(Method::PATCH, r#"{"memory": 5}"#).await.refused(400, "InvalidRequest").contains("memory"));
    assert!(change(Method::PATCH, r#"{"code": {}}"#).await.refused(400, "InvalidRequest").contains("zipBase64"));
    change(Method::PATCH, r#"{"code": {"zipBase64": "%%"}}"#).await.refused(400, "InvalidRequest");
    change(Method::PATCH, r#"{"code": {"zipBase64": "aGVsbG8="}}"#).await.refused(422, "InvalidPackage");

    assert_eq!(rig.run("1").await.ok()["version"], 3);
    change(Method::DELETE, "").await.ok();
    rig.run("1").await.refused(404, "FunctionNotFound");
    change(Method::DELETE, "").await.refused(404, "FunctionNotFound");
    let retired: Vec<_> = rig.runner.retired.lock().unwrap().iter().map(|key| key.number).collect();
    assert_eq!(retired, [1, 2, 3, 2, 1]);
    rig.get(&rig.ann, &format!("/functions/{id}")).await.refused(404, "FunctionNotFound");
}

#[tokio::test]
async fn sources_are_compiled_once_and_the_compilers_words_come_back() {
    let rig = Rig::new().await;
    let create = |code: &str| {
        let body = format!(r#"{{"name": "g", "runtime": "go", "code": {{"inline": "{code}"}}}}"#);
        let rig = &rig;
        async move { rig.post(&rig.ann, "/functions", &body).await }
    };
    assert!(create("syntax error").await.refused(422, "CompileFailed").contains("main.go:1"));
    let made = create("package main").await;
    assert_eq!((made.status, &made.json()["codeBytes"]), (StatusCode::CREATED, &8.into()));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let rig = Rig::new().await;
    for name in ["a", "b", "c"] {
        let body = format!(r#"{{"name": "{name}", "runtime": "python", "code": {{"inline": "x"}}}}"#);
        rig.post(&rig.ann, "/functions", &body).await;
    }
    let first = rig.get(&rig.ann, "/functions?limit=2").await.ok();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    let next = format!("/functions?limit=2&cursor={}", first["nextCursor"].as_str().unwrap());
    let second = rig.get(&rig.ann, &next).await.ok();
    assert_eq!((&second["items"][0]["name"], &second["nextCursor"]), (&"c".into(), &serde_json::Value::Null));
}

/// Where the queue is elsewhere, so is what an asynchronous call writes.
#[tokio::test]
async fn a_full_disk_refuses_what_writes_there_and_nothing_else() {
    for backend in [Backend::Embedded, Backend::Aws] {
        let rig = Rig::with(Config { backend, ..Config::default() }).await;
        let parts = [part("file", Some("main.py"), "def handler(e): return e")];
        upload(&rig, &parts).await.ok();
        rig.world.disk_full.store(true, Ordering::SeqCst);
        assert!(upload(&rig, &parts).await.refused(507, "DiskFull").contains("disk is full"));
        let body = r#"{"name": "up", "inputData": 1}"#;
        let queued = rig.ask(Method::POST, "/run").key(&rig.ann).header("x-async", "1").send(body).await;
        match backend {
            Backend::Embedded => {
                assert!(queued.headers.contains_key("retry-after"));
                queued.refused(503, "NoCapacity");
            }
            Backend::Aws => assert_eq!(queued.status, StatusCode::ACCEPTED),
        }
        let waited = rig.ask(Method::POST, "/run").key(&rig.ann).send(body).await;
        assert_eq!(waited.status, StatusCode::OK);
        let ready = rig.get(&rig.ann, "/ready").await;
        assert_eq!(ready.status, StatusCode::OK);
        assert_eq!(
            (&ready.ok()["status"], &ready.ok()["dependencies"]["disk"]["room"]),
            (&"degraded".into(), &"full".into())
        );
        rig.world.disk_full.store(false, Ordering::SeqCst);
        upload(&rig, &parts).await.ok();
    }
}
