//! Bodies that are made to hurt a JSON parser, or to be read differently by two of them.

use http::Method;
use serde_json::json;

use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

async fn daemon() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.deploy_python("echo", ECHO).await;
    daemon
}

async fn send(daemon: &Daemon, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    daemon.request(Method::POST, path).header("content-type", "application/json").body(body).send().await
}

#[tokio::test]
async fn depth_is_bounded_where_it_is_read_and_passed_on_where_it_is_not() {
    let daemon = daemon().await;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [200, 100_000] {
        for field in ["name", "code", "env", "memoryMb", "unknown"] {
            let body = format!(r#"{{"runtime":"python","{field}":{}}}"#, deep(levels));
            send(&daemon, "/functions", body).await.refused(400);
        }
        for field in ["name", "functionId", "modelId", "unknown"] {
            send(&daemon, "/run", format!(r#"{{"{field}":{}}}"#, deep(levels))).await.refused(400);
        }
        send(&daemon, "/run", deep(levels)).await.refused(400);
    }
    send(&daemon, "/keys", format!(r#"{{"name":"k","scopes":{}}}"#, deep(200))).await.refused(400);
    send(&daemon, "/keys", format!(r#"{{"name":"k","scopes":{}}}"#, deep(100_000))).await.refused(413);
    // The input is the function's business: it is passed on as it is, at any depth.
    let input = format!(r#"{{"name":"echo","inputData":{}}}"#, deep(500));
    let answer = send(&daemon, "/run", input).await;
    assert!(answer.status == 200 && answer.text().contains(r#""status":"SUCCESS""#), "{}", answer.text());
    // Not closed, it is no JSON.
    let body = format!(r#"{{"name":"echo","inputData":{}"#, "[".repeat(1 << 20));
    send(&daemon, "/run", body).await.refused(400);
    assert_eq!(daemon.result("echo", &json!(1)).await, 1);
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused() {
    let daemon = daemon().await;
    let bodies: Vec<Vec<u8>> = vec![
        br#"{"name":"echo","name":"other"}"#.to_vec(),
        br#"{"name":"echo","inputData":1,"inputData":2}"#.to_vec(),
        br#"{"name":"echo","functionName":"other"}"#.to_vec(),
        br#"{"name":"echo","Name":"other"}"#.to_vec(),
        b"\xef\xbb\xbf{\"name\":\"echo\"}".to_vec(),
        "{\"name\":\"echo\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        b"{\"name\":\"ec\xc0\xafho\"}".to_vec(),
        br#"{"name":"\ud800"}"#.to_vec(),
        b"{\"name\":\"ec\0ho\"}".to_vec(),
        b"{\"name\":\"echo\"}\0".to_vec(),
        br#"{"name":"echo"}{"name":"echo"}"#.to_vec(),
        br#"{"name":"echo",}"#.to_vec(),
        br#"{'name':'echo'}"#.to_vec(),
        br#"{name:"echo"}"#.to_vec(),
        br#"{"name":"echo"/**/}"#.to_vec(),
        br#"{"name":"echo","inputData":NaN}"#.to_vec(),
        br#"{"name":"echo","inputData":01}"#.to_vec(),
        br#"{"name":"echo","inputData":+1}"#.to_vec(),
        br#"{"name":"echo","inputData":.5}"#.to_vec(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let (sentence, _) = send(&daemon, "/run", body).await.refused(400);
        assert!(!sentence.contains("unwrap"), "{shown}: {sentence}");
    }
    let (sentence, _) = send(&daemon, "/run", b"\xef\xbb\xbf{\"name\":\"echo\"}".to_vec()).await.refused(400);
    assert!(sentence.contains("byte order mark"), "{sentence}");
    // An escaped zero byte is a text like any other, and names nothing.
    send(&daemon, "/run", r#"{"name":"ec\u0000ho"}"#).await.refused(404);
    assert_eq!(daemon.result("echo", &json!(1)).await, 1);
}

#[tokio::test]
async fn numbers_beyond_a_field_are_refused_and_those_of_the_input_passed_on() {
    let daemon = daemon().await;
    for number in ["1e400", "-1", "1.5", "18446744073709551616", "-0", "1e2", &"9".repeat(10_000)] {
        let body = format!(r#"{{"name":"n","runtime":"python","code":{{"inline":"x"}},"memoryMb":{number}}}"#);
        send(&daemon, "/functions", body).await.refused(400);
    }
    let digits = "9".repeat(4000);
    let answer = send(&daemon, "/run", format!(r#"{{"name":"echo","inputData":{digits}}}"#)).await;
    assert!(answer.status == 200 && answer.text().contains(&digits), "{}", answer.text());
    assert_eq!(daemon.result("echo", &json!(1)).await, 1);
}

#[tokio::test]
async fn very_many_fields_are_one_refusal() {
    let daemon = daemon().await;
    let fields: Vec<String> = (0..200_000).map(|n| format!(r#""k{n}":0"#)).collect();
    let fields = fields.join(",");
    send(&daemon, "/run", format!("{{{fields}}}")).await.refused(400);
    send(&daemon, "/functions", format!(r#"{{"env":{{{fields}}}}}"#)).await.refused(400);
    assert_eq!(daemon.result("echo", &json!(1)).await, 1);
}

/// A few bytes of it could become gigabytes.
#[tokio::test]
async fn compressed_bodies_are_refused() {
    let daemon = daemon().await;
    for (method, path) in [
        (Method::POST, "/run"),
        (Method::POST, "/functions"),
        (Method::PATCH, "/functions/echo"),
        (Method::POST, "/keys"),
    ] {
        for coding in ["gzip", "br", "deflate, gzip", "x"] {
            let request = daemon.request(method.clone(), path).header("content-encoding", coding);
            let (sentence, code) = request.body(vec![0x1f, 0x8b, 8, 0]).send().await.refused(415);
            assert!(code == "UnsupportedMediaType" && sentence.contains("Content-Encoding"), "{path}: {sentence}");
        }
    }
    let upload = daemon.request(Method::POST, "/upload").header("content-encoding", "gzip");
    upload.header("content-type", "multipart/form-data; boundary=x").body("--x--").send().await.refused(415);
    let plain = daemon.run("echo", &json!(1)).header("content-encoding", "identity").send().await;
    assert_eq!(plain.expect(200)["result"], 1);
}
