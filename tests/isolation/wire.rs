//! Functions that take the socket between their runtime and the daemon and misuse it. Each is ended or refused, recorded as what it
//! did, and neither its neighbour nor its own next call is disturbed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::{ECHO, inline};

/// A function that has answered in its runtime's stead holds up its own next call as long as it goes on; here it is over by then.
const SELF_ANSWERED: Duration = Duration::from_millis(1000);

/// Does with the Python runtime's socket as it is told.
const LIAR: &str = r#"
import array, json, os, socket, time
S = 200
def frame(kind, meta, body=b'', version=1, announced=None):
    length = len(body) if announced is None else announced
    return bytes((version, kind)) + len(meta).to_bytes(2, 'little') + length.to_bytes(4, 'little') + meta + body
def send(data):
    while data:
        data = data[os.write(S, data):]
def handler(event, context):
    how = event.get('how') if isinstance(event, dict) else None
    if not how: return 'fine'
    print('begin', flush=True)
    me = json.dumps({'id': context.aws_request_id}).encode()
    result = lambda body, meta=me: frame(18, meta, body)
    padded = lambda **more: json.dumps({'id': context.aws_request_id, **more}).encode()
    sent = {
        'another id': lambda: result(b'1', b'{"id":"01234567-89ab-cdef-0123-456789abcdef"}'),
        'no id': lambda: result(b'1', b'{}'),
        'meta no json': lambda: result(b'1', b'{oops'),
        'meta an array': lambda: result(b'1', b'[]'),
        'meta empty': lambda: result(b'1', b''),
        'meta not utf-8': lambda: result(b'1', b'{"id":"\xff\xfe"}'),
        'meta deep': lambda: result(b'1', b'{"id":"x","error":' + b'[' * 30000 + b']' * 30000 + b'}'),
        'meta of wrong types': lambda: result(b'1', padded(handlerUs='soon')),
        'ready again': lambda: frame(16, b'{}'),
        'specialised again': lambda: frame(17, b'{"error":null}'),
        'the daemon itself': lambda: frame(2, me, b'{}'),
        'unknown kind': lambda: frame(99, me),
        'version': lambda: frame(18, me, b'1', version=2),
        'no protocol': lambda: b'GET / HTTP/1.1\r\n\r\n',
        'two answers at once': lambda: result(b'1') + result(b'2'),
        'a thousand answers': lambda: result(b'1') * 1000,
        'four gigabytes': lambda: frame(18, me, announced=0xffffffff),
        'one byte too many': lambda: frame(18, me, announced=6 * 1024 * 1024 + 1),
        'ready of four gigabytes': lambda: frame(16, b'{}', announced=0xffffffff),
        'half a header': lambda: result(b'1')[:3],
        'half a meta': lambda: result(b'1')[:12],
        'half a body': lambda: frame(18, me, b'[1', announced=100000),
        'a body of no utf-8': lambda: result(b'"\xff"'),
        'a body with nul': lambda: result(b'"a\x00b"'),
        'a body that breaks out': lambda: result(b'1,"status":"DEAD","x":1'),
        'a body that closes more': lambda: result(b'{"a":1}}'),
        'no body': lambda: result(b''),
        'a deep body': lambda: result(b'[' * 100000 + b']' * 100000),
        'a huge number': lambda: result(b'1e999'),
        'a key twice': lambda: result(b'{"a":1,"a":2}'),
        'a lone surrogate': lambda: result(b'"\\ud800"'),
        'many lines': lambda: result(b'{\n\n"a":\r\n[1]\n}'),
        'the largest meta': lambda: result(b'7', padded(pad='x' * 65400)),
        'usage': lambda: result(b'7', padded(handlerUs=2**64 - 1, llmTokens=2**64 - 1, serving=True, peakMemoryBytes=1)),
        'another error type': lambda: result(b'', padded(error={'errorType': 'Timeout', 'errorMessage': 'no'})),
    }.get(how)
    if sent:
        send(sent())
        time.sleep(30 if how.startswith('half') else 0.3)
        os._exit(7)
    s = socket.socket(fileno=S)
    if how == 'byte by byte':
        for byte in result(b'[1,2,3]'): send(bytes([byte])); time.sleep(0.001)
        os._exit(7)
    if how == 'hang up':
        s.close(); time.sleep(30)
    if how == 'no more to say':
        s.shutdown(socket.SHUT_WR); time.sleep(30)
    if how == 'no more to hear':
        s.shutdown(socket.SHUT_RD); s.detach(); return 'fine'
    if how == 'twice':
        send(result(b'"mine"')); time.sleep(0.2); s.detach(); return 'again'
    if how == 'hang up later':
        send(result(b'"mine"')); time.sleep(0.2); s.close(); time.sleep(30)
    if how == 'descriptors':
        whole = result(b'"passed"')
        fds = array.array('i', [os.open('/dev/null', os.O_RDONLY) for _ in range(7)] + [S])
        for byte in whole:
            # The kernel lets so many be under way and no more: then wait until they have been thrown away.
            while True:
                try: s.sendmsg([bytes([byte])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                except OSError: time.sleep(0.001)
                else: break
        os._exit(7)
    if how == 'a flood of frames':
        block = result(b'1') * 500
        while True: send(block)
    if how == 'most of a result':
        send(frame(18, me, b'"' + b'x' * (6 * 1024 * 1024 - 2), announced=6 * 1024 * 1024))
        time.sleep(30)
    raise ValueError('not told how: ' + how)
"#;

async fn liars() -> Daemon {
    // Not frozen in between: what goes on after an answer would only go on in the next call.
    let builder: Builder = Daemon::with("SANDBOX__GRACE_MS", 100).set("POOL__FREEZE_AFTER_MS", 60_000);
    let daemon = builder.start().await;
    daemon.deploy_python_with("liar", LIAR, json!({ "timeoutMs": 1500 })).await;
    daemon.deploy_python("neighbour", ECHO).await;
    daemon.result("neighbour", &json!("warm from here on")).await;
    daemon
}

async fn told(daemon: &Daemon, how: &str) -> Value {
    daemon.call("liar", &json!({ "how": how })).await
}

async fn assert_nobody_is_disturbed(daemon: &Daemon, after: &str) {
    let next = daemon.call("liar", &json!({})).await;
    assert_eq!((&next["status"], &next["result"]), (&json!("SUCCESS"), &json!("fine")), "after {after}: {next}");
    assert_eq!((&next["stdout"], &next["stderr"]), (&json!(""), &json!("")), "after {after}: {next}");
    let neighbour = daemon.call("neighbour", &json!({ "after": after })).await;
    assert_eq!(
        (&neighbour["status"], &neighbour["result"]["after"]),
        (&json!("SUCCESS"), &json!(after)),
        "{neighbour}"
    );
    assert_eq!(neighbour["startType"], "WARM", "after {after}: {neighbour}");
}

/// Each lie, the status and error type it is recorded as, and a word of its sentence.
async fn assert_recorded(cases: &[(&str, &str, &str, &str)]) {
    let daemon = liars().await;
    for (how, status, error_type, word) in cases {
        let record = told(&daemon, how).await;
        assert_eq!((&record["status"], &record["errorType"]), (&json!(status), &json!(error_type)), "{how}: {record}");
        assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains(word)), "{how}: {record}");
        assert_eq!((&record["result"], &record["stdout"]), (&json!(null), &json!("begin\n")), "{how}: {record}");
        if *error_type == "FunctionError" {
            tokio::time::sleep(SELF_ANSWERED).await;
        }
        assert_nobody_is_disturbed(&daemon, how).await;
    }
    let log = daemon.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn lies_end_the_sandbox_that_tells_them() {
    let crashed = "Crashed";
    let cases = [
        ("another id", "another invocation"),
        ("no id", "can't be read"),
        ("meta no json", "can't be read"),
        ("meta an array", "can't be read"),
        ("meta empty", "can't be read"),
        ("meta not utf-8", "can't be read"),
        ("meta deep", "can't be read"),
        ("meta of wrong types", "can't be read"),
        ("ready again", "sent Ready where Result was due"),
        ("specialised again", "sent Specialised where Result was due"),
        ("the daemon itself", "sent Invoke where Result was due"),
        ("ready of four gigabytes", "sent Ready"),
        ("unknown kind", "kind 99"),
        ("version", "version 2"),
        ("no protocol", "version 71"),
        ("two answers at once", "more than one answer"),
        ("a thousand answers", "more than one answer"),
        ("hang up", "closed its socket"),
        ("no more to say", "closed its socket"),
    ];
    assert_recorded(&cases.map(|(how, word)| (how, "FAILED", crashed, word))).await;
}

#[tokio::test]
async fn lengths_and_bodies_are_not_believed() {
    assert_recorded(&[
        ("four gigabytes", "FAILED", "OutputTooLarge", "4294967295"),
        ("one byte too many", "FAILED", "OutputTooLarge", "6291457"),
        ("a body of no utf-8", "FAILED", "FunctionError", "not JSON"),
        ("a body with nul", "FAILED", "FunctionError", "not JSON"),
        ("a body that breaks out", "FAILED", "FunctionError", "not JSON"),
        ("a body that closes more", "FAILED", "FunctionError", "not JSON"),
        ("no body", "FAILED", "FunctionError", "not JSON"),
        ("a deep body", "FAILED", "FunctionError", "1000 levels"),
        ("another error type", "FAILED", "FunctionError", "Timeout: no"),
    ])
    .await;
}

#[tokio::test]
async fn whoever_stalls_is_timed_out() {
    let timeout = "ran longer";
    assert_recorded(&[
        ("half a header", "TIMEOUT", "Timeout", timeout),
        ("half a meta", "TIMEOUT", "Timeout", timeout),
        ("half a body", "TIMEOUT", "Timeout", timeout),
    ])
    .await;
}

#[tokio::test]
async fn what_is_odd_but_json_is_passed_on_as_it_is() {
    let daemon = liars().await;
    for (how, inside) in [
        ("a huge number", r#""result":1e999,"#),
        ("a key twice", r#""result":{"a":1,"a":2},"#),
        ("a lone surrogate", r#""result":"\ud800","#),
        ("the largest meta", r#""result":7,"#),
        ("byte by byte", r#""result":[1,2,3],"#),
    ] {
        let text = daemon.run("liar", &json!({ "how": how })).send().await.text();
        assert!(text.contains(inside) && text.contains(r#""status":"SUCCESS""#), "{how}: {text}");
        tokio::time::sleep(SELF_ANSWERED).await;
        assert_nobody_is_disturbed(&daemon, how).await;
    }
    let record = told(&daemon, "usage").await;
    assert_eq!(record["status"], "SUCCESS", "{record}");
    assert_eq!(record["llmTokenCount"], (1_u64 << 53) - 1, "within what every reader takes: {record}");
    assert!(record["handlerDurationMs"].as_f64() <= record["durationMs"].as_f64(), "{record}");
    tokio::time::sleep(SELF_ANSWERED).await;
    assert_nobody_is_disturbed(&daemon, "usage").await;
}

/// An event ends at an empty line, and a value may have some.
#[tokio::test]
async fn a_value_of_many_lines_does_not_break_an_event_stream() {
    let daemon = liars().await;
    let request = daemon.run("liar", &json!({ "how": "many lines" })).header("accept", "text/event-stream");
    let text = request.send().await.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let data = last.lines().find_map(|line| line.strip_prefix("data: ")).expect("the last event's data");
    let record: Value = serde_json::from_str(data).expect("whole");
    assert_eq!((last.lines().count(), &record["result"]), (3, &json!({ "a": [1] })), "{text}");
}

/// The second answer comes when the call is over and its sandbox idle: the next call finds it before it has sent anything, and goes
/// to another sandbox.
#[tokio::test]
async fn a_sandbox_spoiled_between_calls_is_not_given_to_the_next() {
    let daemon = liars().await;
    for (how, moves) in [("twice", true), ("hang up later", true), ("no more to hear", false)] {
        let record = told(&daemon, how).await;
        assert_eq!(record["status"], "SUCCESS", "{how}: {record}");
        let before = daemon.metrics().await.sum("faasd_worker_moved_calls_total", &[]);
        tokio::time::sleep(SELF_ANSWERED).await;
        assert_nobody_is_disturbed(&daemon, how).await;
        let moved = daemon.metrics().await.sum("faasd_worker_moved_calls_total", &[]) - before;
        // A runtime that can't hear ends by itself, and may be gone before it is found.
        assert!(moved == 1.0 || !moves, "{how}: {moved} moved");
    }
    assert_eq!(daemon.counted("liar", "FAILED").await, 0.0, "nobody's call failed of it");
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("its descriptors").count()
}

#[tokio::test]
async fn passed_descriptors_never_arrive() {
    let daemon = liars().await;
    let mut before = 0;
    for round in 0..6 {
        let record = told(&daemon, "descriptors").await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!("passed")), "{record}");
        tokio::time::sleep(SELF_ANSWERED).await;
        assert_nobody_is_disturbed(&daemon, "descriptors").await;
        if round == 0 {
            // What the daemon makes ahead after its first sandboxes is there by now, with the descriptors that it keeps open.
            before = descriptors(&daemon);
        }
    }
    let after = descriptors(&daemon);
    assert!(after < before + 40, "{before} descriptors before, {after} after 5 × 8 × 60 were passed");
}

/// Sixteen at once announce the most there may be, send all but the end of it, and stall.
#[tokio::test]
async fn what_is_buffered_of_a_flood_is_bounded() {
    let daemon = liars().await;
    for how in ["most of a result", "a flood of frames"] {
        let input = json!({ "how": how });
        let calls = (0..16).map(|_| daemon.call("liar", &input));
        for record in futures_util::future::join_all(calls).await {
            let right = match how {
                "most of a result" => record["status"] == "TIMEOUT",
                _ => record["status"] == "SUCCESS" || record["errorType"] == "Crashed",
            };
            assert!(right, "{how}: {record}");
        }
        assert_nobody_is_disturbed(&daemon, how).await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(peak.is_some_and(|peak| peak < 300 << 10), "the daemon itself grew to {peak:?} KiB");
}

#[tokio::test]
async fn a_module_that_speaks_for_its_runtime_does_not_load() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("neighbour", ECHO).await;
    for (name, said, word) in [
        ("ready", "b'\\x01\\x10\\x02\\x00\\x00\\x00\\x00\\x00{}'", "sent Ready"),
        ("result", "b'\\x01\\x12\\x02\\x00\\x01\\x00\\x00\\x00{}1'", "sent Result"),
        ("twice", "b'\\x01\\x11\\x0e\\x00\\x00\\x00\\x00\\x00{\"error\":null}' * 2", "more than one"),
        ("version", "b'\\x02\\x11\\x02\\x00\\x00\\x00\\x00\\x00{}'", "version 2"),
        ("no json", "b'\\x01\\x11\\x02\\x00\\x00\\x00\\x00\\x00!!'", "can't be read"),
        ("long", "b'\\x01\\x11\\x02\\x00\\xff\\xff\\xff\\xff{}'", "protocol"),
    ] {
        let source = format!("import os, time\nos.write(200, {said})\ntime.sleep(5)\n{ECHO}");
        let name = name.replace(' ', "-");
        daemon.deploy_python(&name, &source).await;
        let record = daemon.call(&name, &json!({})).await;
        assert_eq!(
            (&record["status"], &record["errorType"]),
            (&json!("FAILED"), &json!("InitError")),
            "{name}: {record}"
        );
        assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains(word)), "{name}: {record}");
        assert_eq!(daemon.result("neighbour", &json!(name)).await, json!(name));
    }
}

#[tokio::test]
async fn node_code_that_takes_the_socket_harms_itself_alone() {
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 100).start().await;
    let source = r#"
const fs = require('fs');
const frame = (id, body) => {
  const meta = JSON.stringify({ id });
  const head = Buffer.from([1, 18, 0, 0, 0, 0, 0, 0]);
  head.writeUInt16LE(meta.length, 2); head.writeUInt32LE(body.length, 4);
  return Buffer.concat([head, Buffer.from(meta), Buffer.from(body)]);
};
exports.handler = async (event, context) => {
  if (event.how === 'other') fs.writeSync(3, frame('someone', '1'));
  if (event.how === 'both') fs.writeSync(3, Buffer.concat([frame(context.awsRequestId, '1'), frame(context.awsRequestId, '2')]));
  if (event.how === 'close') fs.closeSync(3);
  if (event.how) await new Promise((done) => setTimeout(done, 20000));
  return 'fine';
};
"#;
    daemon.post("/functions", &inline("f", "nodejs", source)).send().await.expect(201);
    for (how, word) in [("other", "another invocation"), ("both", "more than one"), ("close", "")] {
        let record = daemon.call("f", &json!({ "how": how })).await;
        assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("Crashed")), "{how}: {record}");
        assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains(word)), "{how}: {record}");
        assert_eq!(daemon.result("f", &json!({})).await, "fine", "after {how}");
    }
}

/// What is left of a flood of files ends its sandbox, rather than being cleared away by the daemon for as long as it takes.
#[tokio::test]
async fn a_flood_of_output_files_is_not_seen_in_the_next_call() {
    let daemon = Daemon::start().await;
    let source = "import os\ndef handler(event, context):\n    seen = len(os.listdir('/output'))\n    \
                  for n in range(event['files']):\n        open(f'/output/{n}', 'w').close()\n    return seen\n";
    daemon.deploy_python("f", source).await;
    let record = daemon.call("f", &json!({ "files": 5_000 })).await;
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(0)), "{record}");
    assert!(record["outputFiles"].as_array().is_some_and(|files| files.len() <= 100), "{record}");
    let next = daemon.call("f", &json!({ "files": 3 })).await;
    assert_eq!((&next["result"], next["outputFiles"].as_array().map(Vec::len)), (&json!(0), Some(3)), "{next}");
    assert_ne!(next["startType"], "WARM", "{next}");
    assert_eq!(daemon.call("f", &json!({ "files": 0 })).await["startType"], "WARM");
}
