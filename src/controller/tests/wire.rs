//! The server on a real socket: keep-alive, half-sent bodies, slow heads, refused connections, orderly shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::run_body;
use super::rig::Rig;
use crate::config::Config;
use crate::controller::serve;
use crate::ports::bus::Reach;

#[tokio::test]
async fn a_node_that_hears_no_news_says_so_and_goes_on() {
    let rig = Rig::new().await;
    let ready = async |reach: Option<Reach>| {
        *rig.bus.1.lock().unwrap() = reach;
        let told = rig.ask(Method::GET, "/ready").send("").await.ok();
        (told["status"].as_str().unwrap().to_owned(), told["dependencies"]["news"].clone())
    };
    assert_eq!(ready(None).await, ("ready".to_owned(), Value::Null), "one that is alone hears itself");
    let latency = Some(Duration::from_millis(2));
    let up = ready(Some(Reach { is_up: true, latency })).await;
    assert_eq!(up, ("ready".to_owned(), json!({ "status": "up", "latencyMs": 2.0 })));
    let down = ready(Some(Reach { is_up: false, latency: None })).await;
    assert_eq!(down, ("degraded".to_owned(), json!({ "status": "down", "latencyMs": 0.0 })));
}

struct Served {
    rig: Rig,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

async fn serving(config: Config) -> Served {
    let rig = Rig::with(config).await;
    rig.echo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, rig.controller.clone(), None, async move {
        let _ = stopped.await;
    }));
    Served { rig, address, stop: Some(stop), server }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn run(&self, input: &str) -> String {
        let body = run_body(input);
        let head = format!(
            "POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
            self.rig.ann,
            body.len()
        );
        head + &body
    }
}

/// One answer with a known length, head and body.
async fn answer(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.unwrap().unwrap();
        text.extend_from_slice(&buffer[..n]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else {
            assert!(n > 0, "closed after {whole:?}");
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if n == 0 || body.len() >= length.parse().unwrap() {
            return whole;
        }
    }
}

async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    let mut buffer = [0; 64];
    matches!(tokio::time::timeout(within, stream.read(&mut buffer)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn calls_follow_each_other_on_one_connection() {
    let served = serving(Config::default()).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        stream.write_all(served.run("[1]").as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(r#""result":[1]"#), "{text}");
    }
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let text = answer(&mut stream).await;
    assert!(
        text.contains(r#"faasd_controller_http_requests_total{method="POST",route="/run",status="200"} 3"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_half_sent_body_is_refused_and_harms_nobody() {
    let mut config = Config::default();
    config.http.body_timeout_ms = 100;
    let served = serving(config).await;
    let mut slow = served.connect().await;
    let whole = served.run("\"abcdefgh\"");
    slow.write_all(&whole.as_bytes()[..whole.len() - 5]).await.unwrap();
    let text = answer(&mut slow).await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("RequestTimeout"), "{text}");

    let mut gone = served.connect().await;
    gone.write_all(&whole.as_bytes()[..whole.len() - 5]).await.unwrap();
    gone.shutdown().await.unwrap();
    let mut text = String::new();
    gone.read_to_string(&mut text).await.unwrap();
    assert!(text.is_empty() || text.contains("IncompleteBody"), "{text}");

    let mut well = served.connect().await;
    well.write_all(whole.as_bytes()).await.unwrap();
    assert!(answer(&mut well).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_too_large_gets_its_answer_while_the_client_still_sends() {
    let mut config = Config::default();
    config.limits.sync_payload_bytes = 1000;
    let served = serving(config).await;
    let mut stream = served.connect().await;
    stream.write_all(served.run(&format!("\"{}\"", "x".repeat(4_000_000))).as_bytes()).await.unwrap();
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("PayloadTooLarge"), "{text}");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_an_idle_connection_is_not() {
    let mut config = Config::default();
    config.http.header_timeout_ms = 500;
    let served = serving(config).await;
    let (mut slow, mut idle) = (served.connect().await, served.connect().await);
    slow.write_all(b"POST /run HTTP/1.1\r\nhost:").await.unwrap();
    idle.write_all(served.run("1").as_bytes()).await.unwrap();
    answer(&mut idle).await;
    assert!(is_closed(&mut slow, Duration::from_secs(4)).await);
    idle.write_all(served.run("2").as_bytes()).await.unwrap();
    assert!(answer(&mut idle).await.contains(r#""result":2"#));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused_at_once() {
    let mut config = Config::default();
    config.http.connections_max = 2;
    let served = serving(config).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = served.connect().await;
        stream.write_all(served.run("1").as_bytes()).await.unwrap();
        answer(&mut stream).await;
        kept.push(stream);
    }
    assert!(is_closed(&mut served.connect().await, Duration::from_secs(2)).await);
    kept.pop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = served.connect().await;
    stream.write_all(served.run("1").as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn shutdown_closes_the_idle_and_finishes_the_rest() {
    let mut served = serving(Config::default()).await;
    let (mut idle, mut busy, mut fresh) = (served.connect().await, served.connect().await, served.connect().await);
    idle.write_all(served.run("1").as_bytes()).await.unwrap();
    answer(&mut idle).await;
    busy.write_all(served.run("\"wait\"").as_bytes()).await.unwrap();
    while served.rig.controller.calls_running() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    served.stop.take().unwrap().send(()).unwrap();
    assert!(is_closed(&mut idle, Duration::from_secs(2)).await);
    assert!(is_closed(&mut fresh, Duration::from_secs(2)).await);
    assert!(!served.server.is_finished());
    served.rig.runner.go_on.notify_one();
    assert!(answer(&mut busy).await.contains(r#""result":"waited""#));
    tokio::time::timeout(Duration::from_secs(2), &mut served.server).await.expect("it ends").unwrap();
}
