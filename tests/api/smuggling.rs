//! Requests that two readers could take for different ones: each must be refused or read in one way, and nothing hidden behind one
//! may run. Sent as raw bytes, since no client would.

use std::time::Duration;

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

const PATIENCE: Duration = Duration::from_secs(4);

async fn daemon() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.deploy_python("victim", ECHO).await;
    daemon.deploy_python("echo", ECHO).await;
    daemon
}

/// The request that must never run: it would delete a function.
fn hidden(daemon: &Daemon) -> String {
    format!("DELETE /functions/victim HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n", daemon.key())
}

async fn still_serves(daemon: &Daemon, after: &str) {
    assert_eq!(daemon.get("/functions/victim").send().await.status, 200, "deleted by {after:?}");
    assert_eq!(daemon.result("echo", &json!(after)).await, after);
}

fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

/// Bodies framed in two ways, or in one that is spelt oddly, each followed by a request that only the wrong reading finds.
#[tokio::test]
async fn nothing_hidden_in_a_body_is_ever_run() {
    let daemon = daemon().await;
    let long = hidden(&daemon).len();
    let framings: Vec<(String, &str)> = vec![
        (format!("content-length: {long}\r\ntransfer-encoding: chunked"), "0\r\n\r\n"),
        (format!("transfer-encoding: chunked\r\ncontent-length: {long}"), "0\r\n\r\n"),
        ("content-length: 5\r\ncontent-length: 0".to_owned(), ""),
        ("content-length: 0\r\ncontent-length: 5".to_owned(), ""),
        ("content-length: 0, 5".to_owned(), ""),
        ("content-length: +0".to_owned(), ""),
        ("content-length: -1".to_owned(), ""),
        ("content-length: 0x0".to_owned(), ""),
        ("content-length: ".to_owned(), ""),
        ("content-length: 0 0".to_owned(), ""),
        ("content-length: 99999999999999999999".to_owned(), ""),
        ("content-length : 5".to_owned(), ""),
        ("content-length\t: 5".to_owned(), ""),
        ("transfer-encoding : chunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: chunked, gzip".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: gzip, chunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: xchunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: identity\r\ntransfer-encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: \"chunked\"".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: \x0bchunked".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding: chunked;q=0".to_owned(), "0\r\n\r\n"),
        ("transfer-encoding:\r\n chunked".to_owned(), "0\r\n\r\n"),
        ("x: y\r\n transfer-encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("x: y\0\r\ntransfer-encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("x: y\rtransfer-encoding: chunked".to_owned(), "0\r\n\r\n"),
        ("x\0: y".to_owned(), ""),
        (": y".to_owned(), ""),
        ("x y: z".to_owned(), ""),
        ("transfer-encoding: chunked".to_owned(), "FFFFFFFFFFFFFFFFF\r\n"),
        ("transfer-encoding: chunked".to_owned(), "-1\r\n"),
        ("transfer-encoding: chunked".to_owned(), "0x0\r\n\r\n"),
        ("transfer-encoding: chunked".to_owned(), "2\r\n{}0\r\n\r\n"),
        ("transfer-encoding: chunked".to_owned(), "2;a=\nb\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked".to_owned(), " 0\r\n\r\n"),
        ("transfer-encoding: chunked".to_owned(), "\r\n0\r\n\r\n"),
    ];
    for (framing, body) in framings {
        let request = format!(
            "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n{framing}\r\n\r\n{body}{}",
            daemon.key(),
            hidden(&daemon)
        );
        let answer = daemon.exchange(request.as_bytes(), PATIENCE).await;
        assert!(answers(&answer) <= 1, "{framing:?}: more than one answer: {answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{framing:?}: {answer}");
        still_serves(&daemon, &framing.replace('\0', "NUL")).await;
    }
}

/// Old versions have no chunks, so a chunked body there is what follows the request, to whoever believes the version.
#[tokio::test]
async fn an_old_version_has_no_chunks() {
    let daemon = daemon().await;
    let request = format!(
        "POST /run HTTP/1.0\r\nx-api-key: {}\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{}",
        daemon.key(),
        hidden(&daemon)
    );
    let answer = daemon.exchange(request.as_bytes(), PATIENCE).await;
    assert!(answers(&answer) <= 1 && !answer.starts_with("HTTP/1.1 2"), "{answer}");
    still_serves(&daemon, "HTTP/1.0").await;
    // Without tricks it is served, and its connection closed.
    let answer = daemon.exchange(b"GET /health HTTP/1.0\r\n\r\n", PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn first_lines_and_hosts_that_are_none_are_refused() {
    let daemon = daemon().await;
    for request in [
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /health HTTP/1.1\r\n host: a\r\n\r\n",
        "GET /health HTTP/1.2\r\nhost: a\r\n\r\n",
        "GET /health HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /health HTTP/1.1 \r\nhost: a\r\n\r\n",
        "GET  /health HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /he\0alth HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /he alth HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET\t/health\tHTTP/1.1\r\nhost: a\r\n\r\n",
        "G(T /health HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /health\r\n\r\n",
        "/health\r\n\r\n",
        "CONNECT localhost:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
        "TRACE /health HTTP/1.1\r\nhost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let answer = daemon.exchange(request.as_bytes(), PATIENCE).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    // A proxy's form of the same path is the same route.
    let absolute = "GET http://elsewhere/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = daemon.exchange(absolute.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    still_serves(&daemon, "first lines").await;
}

#[tokio::test]
async fn heads_beyond_their_bounds_are_refused() {
    let daemon = daemon().await;
    let header =
        |bytes| format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\nconnection: close\r\n\r\n", "y".repeat(bytes));
    let many =
        |count| format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{}\r\n", "a: b\r\n".repeat(count));
    let path = |bytes| format!("GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "p".repeat(bytes));
    for (request, statuses) in [
        (header(30 << 10), &["200"][..]),
        (header(33 << 10), &["431"]),
        (header(300 << 10), &["431"]),
        (many(90), &["200"]),
        (many(101), &["431"]),
        (path(30 << 10), &["404"]),
        (path(33 << 10), &["431", "414"]),
    ] {
        let mut socket = daemon.socket().await;
        // It may hang up before all is written.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await;
        let answer = crate::support::client::read_for(&mut socket, PATIENCE).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        // What is unread when it hangs up may reset the connection and take the answer along.
        let lost = answer.is_empty() && statuses != ["200"] && statuses != ["404"];
        assert!(lost || statuses.contains(&status), "{} bytes: {answer:.200}", request.len());
    }
    still_serves(&daemon, "long heads").await;
}

#[tokio::test]
async fn paths_are_taken_as_they_are_written() {
    let daemon = daemon().await;
    for path in [
        "//functions",
        "/functions//victim",
        "/functions/victim/",
        "/./functions/victim",
        "/api/../functions/victim",
        "/functions/../functions/victim",
        "/functions/%2e%2e/functions/victim",
        "/functions/%2E%2E%2Ffunctions%2Fvictim",
        "/functions/..%2fvictim",
        "/functions/..;/victim",
        "/functions/victim%00",
        "/functions/victim%00.json",
        "/functions/victim%20",
        "/functions/victim%0d%0ax-evil:%201",
        "/functions/%c0%ae%c0%ae/victim",
        "/functions/%ff",
        "/functions/%",
        "/functions/%zz",
        "/functions/vic%EF%BC%B4im",
        "/functions/v%D1%96ctim",
        "/FUNCTIONS/victim",
        "/functions/VICTIM",
        "/functions\\victim",
        "/api/api/functions/victim",
        "/invocations/..%2f..%2fetc%2fpasswd/files/x",
        "/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11/files/../../../../etc/passwd",
        "/run;x=y",
        "/%72un",
    ] {
        let request =
            format!("DELETE {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\nconnection: close\r\n\r\n", daemon.key());
        let answer = daemon.exchange(request.as_bytes(), PATIENCE).await;
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("x-evil:"), "{path}: {answer}");
    }
    still_serves(&daemon, "paths").await;
}

#[tokio::test]
async fn a_method_is_the_one_in_the_first_line() {
    let daemon = daemon().await;
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let answer = daemon.get("/functions/victim").header(name, "DELETE").send().await;
        assert_eq!(answer.status, 200, "{name}");
        daemon.post("/functions/victim", &json!({})).header(name, "DELETE").send().await.refused(405);
    }
    daemon.post("/functions/victim?_method=DELETE", &json!({})).send().await.refused(405);
    still_serves(&daemon, "method override").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_each_and_in_order() {
    let daemon = daemon().await;
    let call = |n: u32, more: &str| {
        let body = format!(r#"{{"name":"echo","inputData":"call-{n}"}}"#);
        let length = body.len();
        format!(
            "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n{more}content-length: {length}\r\n\r\n{body}",
            daemon.key()
        )
    };
    let all = call(1, "") + &call(2, "") + &call(3, "connection: close\r\n") + &hidden(&daemon);
    let answer = daemon.exchange(all.as_bytes(), Duration::from_secs(30)).await;
    assert_eq!(answers(&answer), 3, "{answer}");
    let at =
        |n: u32| answer.find(&format!("\"result\":\"call-{n}\"")).unwrap_or_else(|| panic!("no call {n}: {answer}"));
    assert!(at(1) < at(2) && at(2) < at(3), "{answer}");
    still_serves(&daemon, "pipelining").await;
}

#[tokio::test]
async fn whoever_asks_before_sending_is_told_first() {
    let daemon = daemon().await;
    let ask = |key: &str, length: usize| {
        format!(
            "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    for (request, status) in [(ask("wrong", 100), "401"), (ask(daemon.key(), 50 << 20), "413")] {
        let answer = daemon.exchange(request.as_bytes(), PATIENCE).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "not asked to go on and then refused: {answer}");
    }
    let body = r#"{"name":"echo","inputData":"asked"}"#;
    let request = ask(daemon.key(), body.len()).replace("host: x", "host: x\r\nconnection: close") + body;
    let answer = daemon.exchange(request.as_bytes(), Duration::from_secs(30)).await;
    assert!(answer.starts_with("HTTP/1.1 100") && answer.contains("\"result\":\"asked\""), "{answer}");
    still_serves(&daemon, "expect").await;
}
