//! Clients that send slowly, or don't take what they asked for: none may hold a connection, its memory or a call for long.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::read_for;
use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

/// Takes little before it stops taking anything, whatever the kernel would put aside for it.
const RECEIVE_BUFFER_BYTES: u32 = 4096;

async fn narrow_socket(daemon: &Daemon) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a small buffer");
    socket.connect(daemon.address()).await.expect("the daemon accepts a connection")
}

async fn open_connections(daemon: &Daemon) -> f64 {
    daemon.metrics().await.sum("faasd_controller_connections", &[])
}

async fn wait_for_connections(daemon: &Daemon, at_most: f64) {
    let since = Instant::now();
    loop {
        let open = open_connections(daemon).await;
        if open <= at_most {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{open} connections are still open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn run_request(daemon: &Daemon, more: &str, body: &str) -> String {
    let (key, length) = (daemon.key(), body.len());
    format!("POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{more}content-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let daemon = Daemon::with("HTTP__WRITE_TIMEOUT_MS", 1000).start().await;
    daemon.deploy_python("big", "def handler(event, context):\n    return 'x' * (5 << 20)\n").await;
    daemon.deploy_python("echo", ECHO).await;
    daemon.call("echo", &json!(1)).await;
    let before = open_connections(&daemon).await;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let mut socket = narrow_socket(&daemon).await;
        let request = run_request(&daemon, "", r#"{"name":"big"}"#);
        socket.write_all(request.as_bytes()).await.expect("the daemon reads");
        stuck.push(socket);
    }
    let since = Instant::now();
    while open_connections(&daemon).await < before + 5.0 {
        assert!(since.elapsed() < Duration::from_secs(20), "the connections are not counted");
    }
    wait_for_connections(&daemon, before).await;
    // A reader that takes its time, but takes it, gets everything.
    let mut patient = daemon.socket().await;
    let request = run_request(&daemon, "connection: close\r\n", r#"{"name":"big"}"#);
    patient.write_all(request.as_bytes()).await.expect("the daemon reads");
    let mut all = 0;
    let mut piece = vec![0; 256 << 10];
    loop {
        match patient.read(&mut piece).await.expect("not cut off") {
            0 => break,
            bytes => all += bytes,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(all > 5 << 20, "{all} bytes");
    assert_eq!(daemon.result("echo", &json!("fine")).await, "fine");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_cut_off_and_its_call_ends() {
    let daemon = Daemon::with("HTTP__WRITE_TIMEOUT_MS", 1000).start().await;
    let chatty = "import time
def handler(event, context):
    until = time.time() + 6
    while time.time() < until:
        print('x' * 15000, flush=True)
        time.sleep(0.0005)
    return 'done'
";
    daemon.deploy_python("chatty", chatty).await;
    daemon.deploy_python("echo", ECHO).await;
    let before = open_connections(&daemon).await;
    let mut socket = narrow_socket(&daemon).await;
    let request = run_request(&daemon, "accept: text/event-stream\r\n", r#"{"name":"chatty"}"#);
    socket.write_all(request.as_bytes()).await.expect("the daemon reads");
    tokio::time::sleep(Duration::from_millis(500)).await;
    wait_for_connections(&daemon, before).await;
    let since = Instant::now();
    while daemon.counted("chatty", "SUCCESS").await < 1.0 {
        assert!(since.elapsed() < Duration::from_secs(40), "the call did not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.result("echo", &json!("fine")).await, "fine");
}

#[tokio::test]
async fn bodies_and_heads_that_come_a_byte_at_a_time_are_given_up() {
    let daemon = Daemon::with("HTTP__HEADER_TIMEOUT_MS", 1000).set("HTTP__BODY_TIMEOUT_MS", 1000).start().await;
    daemon.deploy_python("echo", ECHO).await;
    let request = run_request(&daemon, "", &format!(r#"{{"name":"echo","inputData":"{}"}}"#, "x".repeat(500)));
    let head = request.find("\r\n\r\n").expect("a head") + 4;
    for begun in [head + 10, 20] {
        let mut socket = daemon.socket().await;
        socket.write_all(&request.as_bytes()[..begun]).await.expect("the daemon reads");
        let since = Instant::now();
        let mut answer = String::new();
        for byte in request.as_bytes()[begun..].chunks(1) {
            if socket.write_all(byte).await.is_err() {
                break;
            }
            answer = read_for(&mut socket, Duration::from_millis(50)).await;
            if !answer.is_empty() {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "still listened to after {begun} bytes");
        }
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(daemon.result("echo", &json!("fine")).await, "fine");
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections() {
    let daemon = Daemon::with("HTTP__CONNECTIONS_PER_ADDRESS", 10).start().await;
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(daemon.socket().await);
    }
    let mut refused = 0;
    for socket in &mut idle {
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut byte)).await {
            refused += 1;
        }
    }
    assert!((20..30).contains(&refused), "{refused} of 30 refused");
    drop(idle);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(daemon.get("/health").send().await.status, 200);
    let counted =
        daemon.metrics().await.sum("faasd_controller_rejected_total", &["reason=\"connections_per_address\""]);
    assert!(counted >= 20.0, "{counted} counted");
}
