//! Bytes on the port that no client sends: requests hidden in requests, heads out of all proportion, paths that would lead elsewhere.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::siege::Siege;
use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

/// Twice the daemon's own patience here.
const PATIENCE: Duration = Duration::from_secs(6);
/// After the last byte of an answer, before the next is given up.
const SILENCE: Duration = Duration::from_millis(400);
/// In the answer of a listing, and in no other.
const LISTING: &str = "\"items\"";

/// What must hold of all that comes back.
#[derive(Clone, Copy)]
enum Holds {
    /// No answer but refusals, or none at all.
    Refused,
    /// Whatever is answered, the listing is not: the hidden request was not served.
    NothingHidden,
    /// No switch to another protocol.
    NoSwitch,
    /// This status, once.
    Status(u16),
}
use Holds::{NoSwitch, NothingHidden, Refused, Status};

struct Raw(&'static str, Holds, fn(&str) -> Vec<u8>);

/// A listing that would be answered if it were taken for a request.
fn listing(key: &str) -> String {
    format!("GET /functions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n")
}

/// A call with these lines in its head, and after the head these bytes.
fn call(key: &str, lines: &str, body: &str) -> Vec<u8> {
    let head = format!("POST /run HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n");
    format!("{head}{lines}\r\n\r\n{body}").into_bytes()
}

fn get(key: &str, target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{lines}\r\n").into_bytes()
}

/// Without a key: what is answered then was come by round the door.
fn stranger(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

const BODY: &str = r#"{"name":"echo","inputData":1}"#;

const ATTACKS: &[Raw] = &[
    Raw("smuggle-by-length-and-chunks", NothingHidden, |key| {
        let hidden = format!("0\r\n\r\n{}", listing(key));
        call(key, &format!("content-length: {}\r\ntransfer-encoding: chunked", hidden.len()), &hidden)
    }),
    Raw("smuggle-by-chunks-and-length", NothingHidden, |key| {
        let hidden = format!("0\r\n\r\n{}", listing(key));
        call(key, &format!("transfer-encoding: chunked\r\ncontent-length: {}", hidden.len()), &hidden)
    }),
    Raw("smuggle-by-two-lengths", Refused, |key| {
        call(key, &format!("content-length: {}\r\ncontent-length: 0", BODY.len()), BODY)
    }),
    Raw("smuggle-by-list-of-lengths", Refused, |key| call(key, &format!("content-length: {}, 5", BODY.len()), BODY)),
    Raw("smuggle-by-signed-length", Refused, |key| call(key, &format!("content-length: +{}", BODY.len()), BODY)),
    Raw("smuggle-by-negative-length", Refused, |key| call(key, "content-length: -1", BODY)),
    Raw("smuggle-by-hexadecimal-length", Refused, |key| call(key, "content-length: 0x1d", BODY)),
    Raw("smuggle-by-unknown-coding", Refused, |key| {
        call(key, "transfer-encoding: xchunked", &format!("0\r\n\r\n{}", listing(key)))
    }),
    Raw("smuggle-by-coding-not-last", Refused, |key| {
        call(key, "transfer-encoding: chunked, identity", &format!("0\r\n\r\n{}", listing(key)))
    }),
    Raw("smuggle-by-coding-after-tab", NothingHidden, |key| {
        let hidden = format!("0\r\n\r\n{}", listing(key));
        call(key, &format!("content-length: {}\r\ntransfer-encoding:\tchunked", hidden.len()), &hidden)
    }),
    Raw("chunk-size-that-overflows", Refused, |key| {
        call(key, "transfer-encoding: chunked", &format!("fffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n"))
    }),
    Raw("chunk-size-with-sign", Refused, |key| {
        call(key, "transfer-encoding: chunked", &format!("+1d\r\n{BODY}\r\n0\r\n\r\n"))
    }),
    Raw("chunk-extensions-without-end", Refused, |key| {
        call(key, "transfer-encoding: chunked", &format!("1d;{}\r\n{BODY}\r\n0\r\n\r\n", "x=y;".repeat(200_000)))
    }),
    Raw("chunks-without-end", Refused, |key| call(key, "transfer-encoding: chunked", &format!("1d\r\n{BODY}\r\n"))),
    Raw("trailers-without-end", Refused, |key| {
        call(key, "transfer-encoding: chunked", &format!("1d\r\n{BODY}\r\n0\r\n{}", "a: b\r\n".repeat(20_000)))
    }),
    Raw("body-of-gigabytes-announced", Status(413), |key| call(key, "content-length: 99999999999", "{")),
    Raw("body-that-is-packed", Refused, |key| {
        let packed = "\u{1f}\u{8}".repeat(20);
        call(key, &format!("content-encoding: gzip\r\ncontent-length: {}", packed.len()), &packed)
    }),
    Raw("folded-header", Refused, |key| get(key, "/functions", "x-folded: a\r\n b\r\n")),
    Raw("space-before-colon", Refused, |key| get(key, "/functions", "content-length : 5\r\n")),
    Raw("nul-in-header", Refused, |key| get(key, "/functions", "x-nul: a\0b\r\n")),
    Raw("bare-return-in-header", Refused, |key| get(key, "/functions", "x-cr: a\rb: c\r\n")),
    Raw("no-name-of-a-header", Refused, |key| get(key, "/functions", ": nameless\r\n")),
    Raw("http-0.9", Refused, |_| b"GET /functions\r\n\r\n".to_vec()),
    Raw("http-2-preface", Refused, |_| b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
    Raw("http-of-the-future", Refused, |key| {
        format!("GET /functions HTTP/9.9\r\nx-api-key: {key}\r\n\r\n").into_bytes()
    }),
    Raw("tls-hello", Refused, |_| b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    Raw("upgrade-to-websocket", NoSwitch, |key| {
        get(
            key,
            "/functions",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n",
        )
    }),
    Raw("upgrade-to-http-2", NoSwitch, |key| {
        get(
            key,
            "/functions",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        )
    }),
    Raw("connect-method", Refused, |key| {
        format!("CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n").into_bytes()
    }),
    Raw("trace-method", Refused, |key| format!("TRACE / HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n").into_bytes()),
    Raw("method-without-end", Refused, |_| format!("{} / HTTP/1.1\r\n\r\n", "G".repeat(1 << 20)).into_bytes()),
    Raw("target-without-end", Refused, |key| get(key, &format!("/{}", "a".repeat(1 << 20)), "")),
    Raw("header-without-end", Refused, |key| get(key, "/functions", &format!("x: {}\r\n", "y".repeat(1 << 20)))),
    Raw("headers-by-thousands", Refused, |key| get(key, "/functions", &"a: b\r\n".repeat(5000))),
    Raw("target-of-another-host", Refused, |key| get(key, "http://169.254.169.254/latest/meta-data/", "")),
    Raw("path-upwards", Refused, |_| stranger("/health/../functions")),
    Raw("path-upwards-encoded", Refused, |_| stranger("/health/%2e%2e/functions")),
    Raw("path-with-two-slashes", Refused, |_| stranger("//functions")),
    Raw("path-with-parameter", Refused, |_| stranger("/functions;/health")),
    Raw("path-with-fragment", Refused, |_| stranger("/functions#/health")),
    Raw("path-in-other-case", Refused, |_| stranger("/FUNCTIONS")),
    Raw("id-upwards", Refused, |key| get(key, "/functions/..%2f..%2fadmin.key", "")),
    Raw("id-upwards-encoded-twice", Refused, |key| get(key, "/invocations/%252e%252e%252fadmin.key", "")),
    Raw("id-with-overlong-dots", Refused, |key| get(key, "/functions/%c0%ae%c0%ae%c0%af", "")),
    Raw("id-with-nul", Refused, |key| get(key, "/functions/echo%00", "")),
    Raw("id-with-backslashes", Refused, |key| get(key, "/functions/..%5c..%5cadmin.key", "")),
    Raw("id-with-line-break", Refused, |key| get(key, "/functions/echo%0d%0aset-cookie:%20a=b", "")),
    Raw("key-in-query", Refused, |key| {
        stranger(&format!("/functions?x-api-key={key}&api_key={key}&key={key}&access_token={key}"))
    }),
    Raw("key-in-cookie", Refused, |key| {
        format!("GET /functions HTTP/1.1\r\nhost: x\r\ncookie: x-api-key={key}\r\n\r\n").into_bytes()
    }),
    Raw("key-as-basic-password", Refused, |key| {
        use base64::Engine;
        let pair = base64::prelude::BASE64_STANDARD.encode(format!("admin:{key}"));
        format!("GET /functions HTTP/1.1\r\nhost: x\r\nauthorization: Basic {pair}\r\n\r\n").into_bytes()
    }),
];

pub fn ids() -> Vec<&'static str> {
    ATTACKS.iter().map(|attack| attack.0).collect()
}

#[tokio::test]
async fn bytes_that_no_client_sends_are_refused() {
    let settings = Daemon::with("HTTP__HEADER_TIMEOUT_MS", 2000).set("HTTP__BODY_TIMEOUT_MS", 2000);
    let mut siege = Siege::of(settings).await;
    siege.mallory.deploy_python("echo", ECHO).await;
    assert_eq!(siege.mallory.result("echo", &json!(1)).await, 1);
    let key = siege.mallory.key().to_owned();

    // The control: two requests as they should be, in one write, get two answers, and the listing is known by what it is known by.
    let plain = [call(&key, &format!("content-length: {}", BODY.len()), BODY), listing(&key).into_bytes()].concat();
    let answer = told(&siege.mallory, &plain).await;
    assert!(statuses(&answer) == [200, 200] && answer.contains(LISTING), "{answer}");
    for Raw(id, holds, bytes) in ATTACKS {
        let answer = told(&siege.mallory, &bytes(&key)).await;
        let statuses = statuses(&answer);
        let held = match holds {
            Refused => statuses.iter().all(|status| *status >= 400) && !answer.contains(LISTING),
            NothingHidden => !answer.contains(LISTING),
            NoSwitch => !statuses.contains(&101),
            Status(status) => statuses == [*status],
        };
        // An answer that says a key, or a status of our own making, is no refusal.
        let quiet = !answer.contains(&key) && !statuses.contains(&500) && !answer.contains("set-cookie");
        let outcome =
            if held && quiet { Ok(()) } else { Err(format!("answered {}", &answer[..answer.len().min(600)])) };
        siege.judge(id, outcome).await;
    }
    siege.lift();
}

/// All that is answered to `bytes`; the daemon may hang up before it has read them.
async fn told(client: &Client, bytes: &[u8]) -> String {
    let (mut reader, mut writer) = client.socket().await.into_split();
    let write = async {
        let _ = writer.write_all(bytes).await;
        // Keeps the connection open for the answer.
        writer
    };
    let read = async {
        let mut answer = Vec::new();
        loop {
            let patience = if answer.is_empty() { PATIENCE } else { SILENCE };
            match tokio::time::timeout(patience, reader.read_buf(&mut answer)).await {
                Ok(Ok(1..)) => {}
                _ => return String::from_utf8_lossy(&answer).into_owned(),
            }
        }
    };
    tokio::join!(write, read).1
}

fn statuses(answer: &str) -> Vec<u16> {
    let after = answer.split("HTTP/1.").skip(1);
    after.filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}
