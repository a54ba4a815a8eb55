//! A program that speaks the Lambda Runtime API badly: its runner bounds what it reads, and says at once what is too large.

use serde_json::json;

use crate::support::archive::zip_with_modes;
use crate::support::daemon::Daemon;
use crate::support::platform::zipped;

/// Speaks the Runtime API badly.
const RUDE_BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os, socket, time
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
API = "/2018-06-01/runtime/invocation/"
def ask(method, path, body=None, headers={}):
    link = http.client.HTTPConnection(host, int(port))
    link.request(method, path, body, headers)
    answer = link.getresponse()
    return answer.status, answer, answer.read()
def raw(data):
    link = socket.create_connection((host, int(port)))
    link.settimeout(5)
    try:
        link.sendall(data)
        return link.recv(4096).decode("latin1")
    except OSError as error:
        return type(error).__name__
while True:
    _, answer, event = ask("GET", API + "next")
    me, how = answer.getheader("Lambda-Runtime-Aws-Request-Id"), json.loads(event).get("how")
    said = None
    if how == "forty megabytes":
        head = f"POST {API}{me}/response HTTP/1.1\r\nContent-Length: 40000000\r\n\r\n"
        raw(head.encode() + b"x" * 100000)
        continue
    if how == "endless chunks":
        link = socket.create_connection((host, int(port)))
        link.sendall(f"POST {API}{me}/response HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(64): link.sendall(chunk)
        except OSError: pass
        continue
    if how == "another id": said = ask("POST", API + "0000/response", b"1")[0]
    if how == "no http": said = raw(b"\x16\x03\x01\x00\xff garbage\r\n\r\n").split("\r\n")[0]
    if how == "a huge head": said = raw(b"GET /x HTTP/1.1\r\nX: " + b"x" * 2000000).split("\r\n")[0]
    if how == "two lengths": said = raw(b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n").split("\r\n")[0]
    if how == "many connections":
        kept = [socket.create_connection((host, int(port))) for _ in range(15)]
        for link in kept: link.close()
        said = "made"
    if how == "pipelined":
        one = f"POST {API}{me}/response HTTP/1.1\r\nContent-Length: 3\r\n\r\n"
        link = socket.create_connection((host, int(port)))
        link.sendall((one + '"a"' + one + '"b"').encode())
        time.sleep(0.2)
        continue
    ask("POST", f"{API}{me}/response", json.dumps(said))
"#;

#[tokio::test]
async fn a_program_rude_to_the_runtime_api_harms_itself_alone() {
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 100).start().await;
    let archive = zip_with_modes([("bootstrap", 0o755, RUDE_BOOTSTRAP.as_bytes())]);
    daemon.deploy(zipped("f", "provided", &archive)).await;
    for how in ["forty megabytes", "endless chunks"] {
        let record = daemon.call("f", &json!({ "how": how })).await;
        let told = (&record["status"], &record["errorType"]);
        assert_eq!(told, (&json!("FAILED"), &json!("OutputTooLarge")), "{how}: {record}");
        assert!(record["durationMs"].as_f64().is_some_and(|ms| ms < 10_000.0), "{how} waits for its timeout: {record}");
        assert_eq!(daemon.result("f", &json!({})).await, json!(null), "after {how}");
    }
    for (how, said) in [
        ("another id", json!(400)),
        ("no http", json!("HTTP/1.1 400 Bad Request")),
        ("a huge head", json!("HTTP/1.1 413 Content Too Large")),
        ("two lengths", json!("HTTP/1.1 400 Bad Request")),
        ("many connections", json!("made")),
        ("pipelined", json!("a")),
    ] {
        let record = daemon.call("f", &json!({ "how": how })).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &said), "{how}: {record}");
        assert_eq!(daemon.result("f", &json!({})).await, json!(null), "after {how}");
    }
}
