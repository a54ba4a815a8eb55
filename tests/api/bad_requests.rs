//! Requests that are refused: the status, one clear sentence that names what is wrong, a code, the request's id.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, inline, merged};

#[tokio::test]
async fn a_definition_with_a_wrong_field_is_refused_by_the_field_s_name() {
    let daemon = Daemon::start().await;
    let cases: Vec<(Value, &str)> = vec![
        (json!({ "name": "has space" }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(65) }), "name"),
        (json!({ "name": "6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11" }), "name"),
        (json!({ "name": "../etc" }), "name"),
        (json!({ "name": 7 }), "name"),
        (json!({ "runtime": "cobol" }), "runtime"),
        (json!({ "runtime": null }), "runtime"),
        (json!({ "memoryMb": 63 }), "memory"),
        (json!({ "memoryMb": 10_241 }), "memory"),
        (json!({ "memoryMb": -1 }), "memory"),
        (json!({ "memoryMb": "much" }), "memory"),
        (json!({ "timeoutMs": 99 }), "timeout"),
        (json!({ "timeoutMs": 900_001 }), "timeout"),
        (json!({ "timeoutMs": 1.5 }), "timeout"),
        (json!({ "env": { "AWS_LAMBDA_FUNCTION_NAME": "x" } }), "AWS_LAMBDA_FUNCTION_NAME"),
        (json!({ "env": { "JOB_ID": "x" } }), "JOB_ID"),
        (json!({ "env": { "LD_PRELOAD": "x" } }), "LD_PRELOAD"),
        (json!({ "env": { "A=B": "x" } }), "A=B"),
        (json!({ "env": { "1ST": "x" } }), "1ST"),
        (json!({ "env": { "NUL": "a\u{0}b" } }), "NUL"),
        (json!({ "env": { "LONG": "x".repeat(5000) } }), "env"),
        (json!({ "env": ["A"] }), "env"),
        (json!({ "description": "x".repeat(5000) }), "description"),
        (json!({ "handler": "../../etc/passwd.f" }), "handler"),
        (json!({ "code": null }), "code"),
        (json!({ "code": "text" }), "code"),
        (json!({ "memory": 128 }), "memory"),
    ];
    for (change, named) in cases {
        let answer = daemon.post("/functions", &merged(inline("f", "python", ECHO), change.clone())).send().await;
        assert_eq!(answer.status, 400, "{change}: {}", answer.text());
        let (sentence, _) = answer.refused(400);
        assert!(sentence.contains(named), "{change} should be named by {named:?}: {sentence}");
    }
    daemon.get("/functions/f").send().await.refused(404);
}

#[tokio::test]
async fn the_bounds_of_memory_and_timeout_are_inside() {
    let daemon = Daemon::start().await;
    let settings = [(64, 100), (10_240, 900_000)];
    for (i, (memory, timeout)) in settings.into_iter().enumerate() {
        let change = json!({ "memoryMb": memory, "timeoutMs": timeout });
        daemon.deploy_python_with(&format!("f{i}"), ECHO, change).await;
    }
}

#[tokio::test]
async fn a_call_that_makes_no_sense_is_refused() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", ECHO).await;
    let run = |body: &str| {
        daemon.request(Method::POST, "/run").header("content-type", "application/json").body(body.to_owned())
    };
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("not json", 400),
        ("[]", 400),
        ("7", 400),
        ("{}", 400),
        (r#"{"inputData":{}}"#, 400),
        (r#"{"name":7,"inputData":{}}"#, 400),
        (r#"{"functionId":"no-uuid","inputData":{}}"#, 404),
        (r#"{"functionId":"6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11","inputData":{}}"#, 404),
        (r#"{"name":"absent","inputData":{}}"#, 404),
        (r#"{"name":"f","inputData":{}} trailing"#, 400),
        (r#"{"name":"f","inputData":{"a":}}"#, 400),
        (r#"{"name":"f","inputData":{},"modelId":7}"#, 400),
    ] {
        let answer = run(body).send().await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        answer.refused(status);
    }
    let (_, code) = run(r#"{"name":"absent","inputData":{}}"#).send().await.refused(404);
    assert_eq!(code, "FunctionNotFound");
    let invalid_utf8 = daemon.request(Method::POST, "/run").header("content-type", "application/json");
    invalid_utf8.body(b"{\"name\":\"f\",\"inputData\":\"\xff\xfe\"}".to_vec()).send().await.refused(400);
    let deep = format!(r#"{{"name":"f","inputData":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    run(&deep).send().await.refused(400);
    assert_eq!(daemon.result("f", &json!("fine")).await, "fine");
}

#[tokio::test]
async fn a_call_without_input_is_a_call_with_null() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    return event is None\n").await;
    let record = daemon.post("/run", &json!({ "name": "f" })).send().await.expect(200);
    assert_eq!(record["result"], true, "{record}");
}

#[tokio::test]
async fn payloads_above_the_limits_are_too_large() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("len", "def handler(event, context):\n    return len(event)\n").await;
    let megabytes = |n: usize| json!("x".repeat(n << 20));
    assert_eq!(daemon.result("len", &megabytes(5)).await, 5 << 20);
    daemon.run("len", &megabytes(7)).send().await.refused(413);
    assert_eq!(daemon.result("len", &json!("ab")).await, 2);
}

/// A large body is refused by its announced length, without anyone reading it to the end.
#[tokio::test]
async fn an_announced_length_beyond_all_limits_is_refused_unread() {
    let daemon = Daemon::start().await;
    let head = format!(
        "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n{{",
        daemon.key()
    );
    let answer = daemon.exchange(head.as_bytes(), Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn what_is_no_route_or_no_method_of_it_is_named() {
    let daemon = Daemon::start().await;
    daemon.get("/nothing/here").send().await.refused(404);
    daemon.request(Method::DELETE, "/run").send().await.refused(405);
    daemon.get("/status/not-an-id").send().await.refused(404);
    daemon.get("/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11").send().await.refused(404);
    daemon.delete("/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11").send().await.refused(404);
    daemon.get("/functions/f%2F..%2Fx").send().await.refused(404);
}

#[tokio::test]
async fn bytes_that_are_no_http_are_answered_or_hung_up_on() {
    let daemon = Daemon::start().await;
    let long_header = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many_headers = format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(5000));
    for bytes in
        [b"\x16\x03\x01\x02\x00\x01\x00".as_slice(), b"HELO\r\n\r\n", long_header.as_bytes(), many_headers.as_bytes()]
    {
        let mut socket = daemon.socket().await;
        // The daemon may hang up before everything is written: that is one of the right answers.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, bytes).await;
        let answer = crate::support::client::read_for(&mut socket, Duration::from_secs(15)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(daemon.get("/health").send().await.status, 200);
}
