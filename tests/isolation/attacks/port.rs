//! Callers who hold on to what others need: connections, half requests, streams that nobody reads.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::siege::{Siege, attacks};
use crate::support::client::read_for;
use crate::support::daemon::Daemon;

/// The daemon's patience with a head and with a body, here.
const PATIENCE_MS: u64 = 1500;
/// Long after it.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// Connections, streams: many more than a caller has use for, fewer than the test's own descriptors.
const MANY: usize = 300;

attacks! {
    "slow-head" => slow_head,
    "slow-body" => slow_body,
    "slow-chunks" => slow_chunks,
    "slow-reader" => slow_reader,
    "reader-gone" => reader_gone,
    "connections-by-hundreds" => connections,
    "connections-cut-off" => cut_off,
    "requests-in-one-write" => pipelined,
    "event-streams-by-hundreds" => streams,
    "log-lines-that-nobody-reads" => unread_lines,
    "calls-given-up" => given_up,
}

const TALKER: &str = "import time\ndef handler(event, context):\n    for i in range(event.get('lines', 0)):\n        print('x' * 100)\n    \
                      time.sleep(event.get('s', 0))\n    return 'x' * event.get('bytes', 1)\n";

#[tokio::test]
async fn the_front_door_holds() {
    let settings = Daemon::with("HTTP__HEADER_TIMEOUT_MS", PATIENCE_MS).set("HTTP__BODY_TIMEOUT_MS", PATIENCE_MS);
    let mut siege = Siege::of(settings.set("SANDBOX__GRACE_MS", 300)).await;
    siege.mallory.deploy_python_with("talker", TALKER, json!({ "timeoutMs": 20_000 })).await;
    siege.run(ATTACKS).await;
    siege.lift();
}

fn head(siege: &Siege, body: &str) -> String {
    let key = siege.mallory.key();
    format!("POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n{body}\r\n\r\n")
}

/// Writes `drop` again and again, as slowly as never lets a pause be noticed, until the daemon hangs up.
async fn dripped(siege: &Siege, begin: &str, drop: &[u8]) {
    let mut socket = siege.mallory.socket().await;
    socket.write_all(begin.as_bytes()).await.expect("the daemon reads");
    let since = Instant::now();
    let (mut reader, mut writer) = socket.split();
    let drip = async {
        while writer.write_all(drop).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer);
    tokio::select! {
        () = drip => {}
        _ = read => {}
        () = tokio::time::sleep(GIVEN_UP) => panic!("still served after {:?}", since.elapsed()),
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

async fn slow_head(siege: &Siege) {
    dripped(siege, "GET /functions HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n").await;
}

async fn slow_body(siege: &Siege) {
    dripped(siege, &head(siege, "content-length: 100000"), b" ").await;
}

async fn slow_chunks(siege: &Siege) {
    dripped(siege, &head(siege, "transfer-encoding: chunked"), b"1\r\n \r\n").await;
}

/// Asks for megabytes by the dozen and reads none.
async fn slow_reader(siege: &Siege) {
    let body = r#"{"name":"talker","inputData":{"bytes":4000000}}"#;
    let request = head(siege, &format!("content-length: {}", body.len())) + body;
    let mut kept = Vec::new();
    for _ in 0..12 {
        let mut socket = siege.mallory.socket().await;
        socket.write_all(request.as_bytes()).await.expect("the daemon reads");
        kept.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    siege.ann.get("/functions").send().await.expect(200);
    // One of them reads at last, and gets it all: the answers were real.
    let answer = read_for(&mut kept[0], Duration::from_secs(10)).await;
    assert!(answer.len() > 1 << 20 || answer.is_empty(), "{} bytes", answer.len());
}

async fn reader_gone(siege: &Siege) {
    let body = r#"{"name":"talker","inputData":{"bytes":4000000}}"#;
    let request = head(siege, &format!("content-length: {}", body.len())) + body;
    for _ in 0..12 {
        let mut socket = siege.mallory.socket().await;
        socket.write_all(request.as_bytes()).await.expect("the daemon reads");
    }
}

async fn connections(siege: &Siege) {
    let mut kept = Vec::new();
    for _ in 0..MANY {
        kept.push(siege.mallory.socket().await);
    }
    siege.ann.get("/functions").send().await.expect(200);
}

async fn cut_off(siege: &Siege) {
    for cut in 0..MANY {
        let mut socket = siege.mallory.socket().await;
        let request = head(siege, "content-length: 1000");
        let _ = socket.write_all(&request.as_bytes()[..cut % request.len()]).await;
        // No farewell: what is unread makes the kernel reset it.
    }
}

async fn pipelined(siege: &Siege) {
    let mut socket = siege.mallory.socket().await;
    let requests = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2000);
    let (mut reader, mut writer) = socket.split();
    let write = writer.write_all(requests.as_bytes());
    let mut answer = vec![0; 1 << 16];
    let read = tokio::io::AsyncReadExt::read(&mut reader, &mut answer);
    let (_, read) = tokio::join!(tokio::time::timeout(GIVEN_UP, write), tokio::time::timeout(GIVEN_UP, read));
    let length = read.expect("an answer in time").expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
}

async fn streams(siege: &Siege) {
    let id = siege.mallory.submit("talker", &json!({ "s": 15 })).await;
    let mut kept = Vec::new();
    let mut first = 0;
    for nth in 0..MANY {
        let request = siege.mallory.get(&format!("/invocations/{id}/events")).header("accept", "text/event-stream");
        let (status, _, body) = request.open().await;
        assert!([200, 429, 503].contains(&status), "stream {nth}: {status}");
        first = if nth == 0 { status } else { first };
        kept.push(body);
    }
    assert_eq!(first, 200, "one stream at least is a caller's right");
    siege.ann.get("/functions").send().await.expect(200);
    siege.mallory.delete(&format!("/invocations/{id}")).send().await;
}

async fn unread_lines(siege: &Siege) {
    let before = resident_kib(siege);
    let mut kept = Vec::new();
    for _ in 0..4 {
        let request = siege.mallory.run("talker", &json!({ "lines": 200_000 }));
        kept.push(request.header("accept", "text/event-stream").open().await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(kept.iter().all(|(status, _, _)| *status == 200), "the streams were open");
    let grown = resident_kib(siege).saturating_sub(before);
    // 80 MB were printed, which could all lie in the daemon.
    assert!(grown < 200 << 10, "the daemon grew by {grown} KiB");
}

async fn given_up(siege: &Siege) {
    let body = r#"{"name":"talker","inputData":{"s":0.2}}"#;
    let request = head(siege, &format!("content-length: {}", body.len())) + body;
    for _ in 0..30 {
        let mut socket = siege.mallory.socket().await;
        let _ = socket.write_all(request.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    siege.mallory.result("talker", &json!({})).await;
}

fn resident_kib(siege: &Siege) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", siege.daemon.pid())).expect("its status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    kib.expect("its memory")
}
