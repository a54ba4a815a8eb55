//! What the daemon tells systemd, over the socket that systemd names.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::support::daemon::Daemon;

/// What came so far, a line each; waits until `wanted` is among it.
fn hear(socket: &UnixDatagram, heard: &mut String, wanted: &str) {
    let since = Instant::now();
    while !heard.lines().any(|line| line == wanted) {
        assert!(since.elapsed() < Duration::from_secs(20), "{wanted} was not said, only:\n{heard}");
        let mut bytes = [0; 4096];
        if let Ok(length) = socket.recv(&mut bytes) {
            heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
            heard.push('\n');
        }
    }
}

#[tokio::test]
async fn systemd_is_told_that_it_serves_lives_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut daemon = Daemon::default_with_env(&[
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        // Half a second: it says that it lives four times a second.
        ("WATCHDOG_USEC", "500000"),
    ])
    .start()
    .await;
    let mut heard = String::new();
    hear(&socket, &mut heard, "READY=1");
    assert!(heard.contains(&format!("STATUS=serves at {}", daemon.address())), "{heard}");
    for _ in 0..3 {
        heard.clear();
        hear(&socket, &mut heard, "WATCHDOG=1");
    }
    heard.clear();
    let (status, _) = daemon.sigterm(Duration::from_secs(40)).await;
    assert_eq!(status.code(), Some(0));
    hear(&socket, &mut heard, "STOPPING=1");
}
