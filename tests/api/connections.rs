//! Clients that behave badly: they hang up, dawdle, or sit there by the thousand.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::read_for;
use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, is_final, page};

const IDLE_CONNECTIONS: usize = 10_000;
/// Descriptors of this process that are not test connections, with room to spare.
const OTHER_DESCRIPTORS: usize = 512;

fn run_request(key: &str, body: &str) -> String {
    format!(
        "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_call_whose_client_hangs_up_still_ends_and_is_recorded() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python("slow", "import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'done'\n")
        .await;
    daemon.call("slow", &json!({})).await;
    let mut socket = daemon.socket().await;
    let request = run_request(daemon.key(), r#"{"name":"slow","inputData":{"hung":"up"}}"#);
    socket.write_all(request.as_bytes()).await.expect("the daemon reads");
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(socket);

    let since = Instant::now();
    let record = loop {
        let (items, _) = page(&daemon.get("/functions/slow/logs").send().await.expect(200));
        if items.len() == 2 && is_final(&items[0]) {
            let id = items[0]["requestId"].as_str().expect("an id");
            break daemon.get(&format!("/invocations/{id}")).send().await.expect(200);
        }
        assert!(since.elapsed() < Duration::from_secs(20), "the call left no record: {items:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!("done")));
    let next = daemon.call("slow", &json!({})).await;
    assert_eq!((&next["startType"], &next["result"]), (&json!("WARM"), &json!("done")), "and the sandbox lives on");
}

#[tokio::test]
async fn a_half_sent_request_is_given_up_in_time_and_runs_nothing() {
    let daemon = Daemon::with("HTTP__HEADER_TIMEOUT_MS", 700).set("HTTP__BODY_TIMEOUT_MS", 700).start().await;
    daemon.deploy_python("echo", ECHO).await;
    let whole = run_request(daemon.key(), r#"{"name":"echo","inputData":{}}"#);
    for cut in [whole.len() - 5, whole.len() / 2, 20] {
        let mut socket = daemon.socket().await;
        socket.write_all(&whole.as_bytes()[..cut]).await.expect("the daemon reads");
        let since = Instant::now();
        let answer = read_for(&mut socket, Duration::from_secs(10)).await;
        assert!(since.elapsed() < Duration::from_secs(8), "still waiting for the rest after {cut} bytes");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let (items, _) = page(&daemon.get("/logs").send().await.expect(200));
    assert_eq!(items.len(), 0, "nothing ran");
    assert_eq!(daemon.result("echo", &json!(1)).await, 1);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_refused() {
    let daemon = Daemon::start().await;
    let mut socket = daemon.socket().await;
    let request = run_request(daemon.key(), r#"{"name":"echo","inputData":{}}"#);
    socket.write_all(&request.as_bytes()[..request.len() - 3]).await.expect("the daemon reads");
    socket.shutdown().await.expect("half-closed");
    let answer = read_for(&mut socket, Duration::from_secs(10)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn ten_thousand_idle_connections_do_not_hold_up_a_caller() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("echo", ECHO).await;
    daemon.call("echo", &json!(0)).await;
    let limit = raise_open_files();
    let wanted = IDLE_CONNECTIONS.min(limit.saturating_sub(OTHER_DESCRIPTORS));
    assert!(wanted >= 1000, "needs more than {limit} open files: raise `ulimit -n`");
    let mut idle = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        idle.push(TcpStream::connect(daemon.address()).await.expect("the daemon accepts a connection"));
    }
    let since = Instant::now();
    for i in 0..200 {
        assert_eq!(daemon.result("echo", &json!(i)).await, i);
    }
    let each = since.elapsed() / 200;
    assert!(each < Duration::from_millis(50), "{each:?} a call beside {wanted} idle connections");
    let memory = resident_bytes(daemon.pid());
    assert!(memory < 200 << 20, "{memory} bytes resident");
    drop(idle);
    assert_eq!(daemon.result("echo", &json!("after")).await, "after");
}

/// Sockets beyond the bound are refused at once; those within keep being served.
#[tokio::test]
async fn connections_beyond_the_bound_are_refused() {
    let daemon = Daemon::with("HTTP__CONNECTIONS_MAX", 50).start().await;
    let mut idle = Vec::new();
    for _ in 0..45 {
        idle.push(daemon.socket().await);
    }
    assert_eq!(daemon.get("/health").send().await.status, 200);
    for _ in 0..20 {
        idle.push(daemon.socket().await);
    }
    let mut one_more = daemon.socket().await;
    let _ = one_more.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = read_for(&mut one_more, Duration::from_secs(3)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop((idle, one_more));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.get("/health").send().await.status, 200);
}

fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft as usize)
}

fn resident_bytes(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the daemon's statm");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}
