//! HTTPS: clients that people have, certificates that change, and those who begin a handshake and leave it.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::certificates::{Authority, Files};
use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::ECHO;

/// The beginning of a ClientHello: the record's header, and none of what it announces.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

async fn run(program: &str, args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn faasd(daemon: &Daemon, scheme: &str, environment: &[(&str, &str)], args: &[&str]) -> Output {
    let url = format!("{scheme}://localhost:{}", daemon.address().port());
    let mut all = vec![("FAASD_URL", url.as_str()), ("FAASD_API_KEY", daemon.key())];
    all.extend(environment);
    run(env!("CARGO_BIN_EXE_faasd"), args, &all).await
}

#[tokio::test]
async fn clients_that_trust_the_certificate_are_served_and_others_are_told() {
    let (authority, folder) = (Authority::new(), folder());
    let files = authority.issue(folder.path());
    let daemon = Builder::default().tls(&authority, &files).start().await;
    daemon.deploy_python("echo", ECHO).await;
    assert_eq!(daemon.result("echo", &json!({ "over": "tls" })).await, json!({ "over": "tls" }));
    let answer = daemon.get("/functions").send().await;
    assert!(answer.header("strict-transport-security").is_some_and(|value| value.starts_with("max-age=")));

    let url = format!("https://localhost:{}/health", daemon.address().port());
    let ca = files.authority.to_str().expect("a plain path");
    for versions in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let curl = run("curl", &[&["-sS", "--cacert", ca, &url], versions.as_slice()].concat(), &[]).await;
        assert!(text(&curl.stdout).contains("ok"), "{versions:?}: {curl:?}");
    }
    let old = run("curl", &["-sS", "--cacert", ca, "--tls-max", "1.1", &url], &[]).await;
    assert!(!old.status.success(), "TLS 1.1: {old:?}");
    let distrustful = run("curl", &["-sS", &url], &[]).await;
    assert_eq!(distrustful.status.code(), Some(60), "{distrustful:?}");
    let script = "import ssl, sys, urllib.request as r
print(r.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2])).read().decode())";
    let python = run("python3", &["-c", script, &url, ca], &[]).await;
    assert!(text(&python.stdout).contains("ok"), "{python:?}");

    let trusting = faasd(&daemon, "https", &[("FAASD_CA_FILE", ca)], &["functions", "--json"]).await;
    assert!(trusting.status.success() && text(&trusting.stdout).contains("echo"), "{trusting:?}");
    let flagged = faasd(&daemon, "https", &[], &["invoke", "echo", "7", "--ca-file", ca]).await;
    assert!(flagged.status.success() && text(&flagged.stdout).contains('7'), "{flagged:?}");
    let distrustful = faasd(&daemon, "https", &[], &["functions"]).await;
    assert!(text(&distrustful.stderr).contains("--ca-file"), "{distrustful:?}");
    let other = Authority::new();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let wrong = other.issue(elsewhere.path()).authority;
    let wrong = faasd(&daemon, "https", &[("FAASD_CA_FILE", wrong.to_str().expect("plain"))], &["functions"]).await;
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("not trusted"), "{wrong:?}");
    let plain = faasd(&daemon, "http", &[], &["functions"]).await;
    assert!(text(&plain.stderr).contains("https://"), "{plain:?}");
}

#[tokio::test]
async fn whoever_speaks_plain_http_to_the_https_port_is_told_so() {
    let (authority, folder) = (Authority::new(), folder());
    let files = authority.issue(folder.path());
    let daemon = Builder::default().tls(&authority, &files).start().await;
    let long = format!("POST /run HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000));
    for request in ["GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "HELO\r\n\r\n", long.as_str()] {
        let answer = daemon.exchange(request.as_bytes(), Duration::from_secs(10)).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
    }
    let plain = Daemon::start().await;
    let answer = plain.exchange(HALF_A_HELLO, Duration::from_secs(15)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(daemon.get("/health").send().await.status, 200);
    assert_eq!(plain.get("/health").send().await.status, 200);
}

/// Opens `count` handshakes and leaves them half done.
async fn half_done(daemon: &Daemon, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = daemon.socket().await;
        socket.write_all(HALF_A_HELLO).await.expect("the daemon reads");
        sockets.push(socket);
    }
    sockets
}

async fn is_closed(socket: &mut TcpStream, within: Duration) -> bool {
    let mut rest = Vec::new();
    // An alert may come first; a reset is an end as well.
    tokio::time::timeout(within, socket.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn handshakes_left_half_done_make_room_for_others() {
    let (authority, folder) = (Authority::new(), folder());
    let files = authority.issue(folder.path());
    let daemon = Builder::default()
        .tls(&authority, &files)
        .set("TLS__HANDSHAKES_MAX", 20)
        .set("TLS__HANDSHAKE_TIMEOUT_MS", 600_000)
        .start()
        .await;
    daemon.deploy_python("echo", ECHO).await;
    let mut sockets = half_done(&daemon, 100).await;
    let since = Instant::now();
    // All have begun when all but as many as may are ended: from here on none begins behind an honest one.
    loop {
        let mut ended = 0;
        for socket in &mut sockets {
            ended += usize::from(is_closed(socket, Duration::from_millis(50)).await);
        }
        if ended >= 80 {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "only {ended} of the oldest made room");
    }
    for i in 0..20 {
        // Each on a connection, and so with a handshake, of its own.
        let fresh = daemon.as_key(daemon.key());
        assert_eq!(fresh.result("echo", &json!(i)).await, i);
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_ended() {
    let (authority, folder) = (Authority::new(), folder());
    let files = authority.issue(folder.path());
    let daemon = Builder::default().tls(&authority, &files).set("TLS__HANDSHAKE_TIMEOUT_MS", 500).start().await;
    let mut sockets = half_done(&daemon, 5).await;
    let since = Instant::now();
    for socket in &mut sockets {
        assert!(is_closed(socket, Duration::from_secs(10)).await, "still open after {:?}", since.elapsed());
    }
    // The last may be counted a moment after it is closed.
    let refused = async || daemon.metrics().await.sum("faasd_controller_rejected_total", &["reason=\"tls_handshake\""]);
    while refused().await < 5.0 {
        assert!(since.elapsed() < Duration::from_secs(20), "{} counted", refused().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn idle_tls_connections_cost_little_and_end_with_the_daemon() {
    const CONNECTIONS: usize = 500;
    let (authority, folder) = (Authority::new(), folder());
    let files = authority.issue(folder.path());
    let mut daemon = Builder::default().tls(&authority, &files).start().await;
    let resident = |daemon: &Daemon| {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", daemon.pid())).expect("the daemon's statm");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("resident pages") * 4096
    };
    assert_eq!(daemon.get("/health").send().await.status, 200);
    let before = resident(&daemon);
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = daemon.as_key(daemon.key());
        assert_eq!(client.get("/health").send().await.status, 200);
        idle.push(client);
    }
    let each = resident(&daemon).saturating_sub(before) / CONNECTIONS as u64;
    println!("{each} bytes an idle TLS connection");
    assert!(each < 64 << 10, "{each} bytes an idle TLS connection");
    let (status, took) = daemon.sigterm(Duration::from_secs(30)).await;
    assert!(status.success() && took < Duration::from_secs(20), "{status} after {took:?}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_broken_one_is_not() {
    let (first, folder) = (Authority::new(), folder());
    let files = first.issue(folder.path());
    let daemon = Builder::default().tls(&first, &files).start().await;
    let second = Authority::new();
    second.issue(folder.path());
    let trusting = daemon.as_key(daemon.key()).over(second.connector());
    let since = Instant::now();
    while trusting.as_key(daemon.key()).get("/health").try_send().await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(60), "the new certificate is not taken up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let Files { certificate, .. } = &files;
    std::fs::write(certificate, "-----BEGIN CERTIFICATE-----\nnothing\n").expect("a broken file");
    let since = Instant::now();
    while !daemon.log().contains("the new certificate can't be used") {
        assert!(since.elapsed() < Duration::from_secs(60), "nobody says that the certificate is broken");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let still = trusting.as_key(daemon.key()).get("/health").send().await;
    assert_eq!(still.status, 200, "the one before stays");
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_stops_the_start_with_a_sentence() {
    let (first, second) = (folder(), folder());
    let certificate = Authority::new().issue(first.path()).certificate;
    let key = Authority::new().issue(second.path()).key;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let data = first.path().join("data").display().to_string();
    for (certificate, key, words) in [
        (certificate.as_str(), key.as_str(), "tls.key must be the key"),
        (certificate.as_str(), certificate.as_str(), "holds no private key"),
        (key.as_str(), key.as_str(), "holds no certificate"),
        ("/nowhere/cert.pem", key.as_str(), "can't read tls.certificate"),
    ] {
        let environment = [("FAASD_TLS__CERTIFICATE", certificate), ("FAASD_TLS__KEY", key)];
        let args = ["--listen", "127.0.0.1:0", "--isolation", "auto", "--data-dir", &data];
        let output = run(env!("CARGO_BIN_EXE_faasd"), &args, &environment).await;
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(output.status.code() == Some(3) && said.contains(words), "{words}: {output:?}");
    }
}
