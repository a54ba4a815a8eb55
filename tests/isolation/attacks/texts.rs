//! Values that would be more than values: names that look like others', numbers beyond numbers, headers in texts, settings that would
//! reach the platform's own code.

use http::Method;
use serde_json::{Value, json};

use super::siege::{Siege, attacks};
use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, inline, merged};

attacks! {
    "name-with-look-alike" => look_alike,
    "name-right-to-left" => right_to_left,
    "name-with-nul" => nul,
    "name-of-pictures" => pictures,
    "name-with-line-break" => line_break,
    "name-that-is-a-path" => path,
    "name-like-an-id" => like_an_id,
    "name-without-end" => without_end,
    "environment-preloads-a-library" => preload,
    "environment-of-the-interpreter" => interpreter,
    "environment-of-node" => node,
    "environment-of-the-platform" => platform,
    "environment-with-odd-names" => odd_names,
    "environment-without-end" => environment_without_end,
    "header-in-a-result" => header_in_result,
    "header-in-an-error" => header_in_error,
    "header-in-a-request" => header_in_request,
    "json-too-deep" => deep,
    "json-key-twice" => twice,
    "json-numbers-beyond-numbers" => numbers,
    "json-keys-by-the-ten-thousand" => keys,
    "json-broken-text" => broken_text,
    "json-that-is-none" => none,
    "handler-that-is-a-path" => handler,
    "logs-with-forged-lines" => forged_lines,
}

#[tokio::test]
async fn values_stay_values() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    siege.mallory.deploy_python("echo", ECHO).await;
    siege.run(ATTACKS).await;
    siege.lift();
}

/// A definition like one that is accepted, but for `change`.
async fn define(siege: &Siege, change: Value) -> Answer {
    siege.mallory.post("/functions", &merged(inline("texts", "python", ECHO), change)).send().await
}

async fn names_refused(siege: &Siege, names: &[&str]) {
    for name in names {
        define(siege, json!({ "name": name })).await.refused(400);
    }
    define(siege, json!({})).await.expect(201);
    siege.mallory.delete("/functions/texts").send().await.expect(200);
}

async fn look_alike(siege: &Siege) {
    names_refused(siege, &["саnаry", "ｃanary", "canary\u{301}", "cаnary", "canaгy"]).await;
}

async fn right_to_left(siege: &Siege) {
    names_refused(siege, &["\u{202e}yranac", "canary\u{200f}", "can\u{200b}ary", "\u{feff}canary"]).await;
}

async fn nul(siege: &Siege) {
    names_refused(siege, &["canary\0", "\0", "canary\u{7f}", "can\u{1b}[31mary"]).await;
}

async fn pictures(siege: &Siege) {
    names_refused(siege, &["🐤", "canary🐤", "👩‍👩‍👧"]).await;
}

async fn line_break(siege: &Siege) {
    names_refused(siege, &["canary\n", "a\r\nset-cookie: a=b", "a\u{2028}b", " canary", "canary\t"]).await;
}

async fn path(siege: &Siege) {
    names_refused(siege, &["..", ".", "../canary", "a/b", "a\\b", "%2e%2e", "a;b", "a?b", "$(id)", "`id`", "a'--"])
        .await;
}

async fn like_an_id(siege: &Siege) {
    names_refused(siege, &["6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11", "6E9C7D0E-31E1-4F6E-8F2E-0B8A3F2B5A11"]).await;
}

async fn without_end(siege: &Siege) {
    names_refused(siege, &["", &"x".repeat(65), &"x".repeat(100_000)]).await;
}

async fn preload(siege: &Siege) {
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"] {
        harmless(siege, name, "/tmp/evil.so").await;
    }
    define(siege, json!({ "env": { "LD_PRELOAD": "/tmp/evil.so" } })).await.refused(400);
}

/// Settings of the interpreter: refused, or come too late to matter to the code that the platform runs before the user's.
async fn interpreter(siege: &Siege) {
    for name in ["PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PYTHONMALLOC", "BASH_ENV", "PATH"] {
        harmless(siege, name, "/tmp/evil").await;
    }
}

async fn harmless(siege: &Siege, name: &str, value: &str) {
    let answer = define(siege, json!({ "env": { name: value } })).await;
    if answer.status == 400 {
        return;
    }
    answer.expect(201);
    for _ in 0..2 {
        assert_eq!(siege.mallory.result("texts", &json!("fine")).await, "fine", "{name}");
    }
    siege.mallory.delete("/functions/texts").send().await.expect(200);
}

async fn node(siege: &Siege) {
    let source = "exports.handler = async (event) => event;\n";
    for (name, value) in
        [("NODE_OPTIONS", "--require /tmp/evil.js"), ("NODE_PATH", "/tmp"), ("NODE_EXTRA_CA_CERTS", "/etc/shadow")]
    {
        let definition = merged(inline("node", "nodejs", source), json!({ "env": { name: value } }));
        let answer = siege.mallory.post("/functions", &definition).send().await;
        if answer.status != 400 {
            answer.expect(201);
            assert_eq!(siege.mallory.result("node", &json!("fine")).await, "fine", "{name}");
            siege.mallory.delete("/functions/node").send().await.expect(200);
        }
    }
}

async fn platform(siege: &Siege) {
    let names = [
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "JOB_ID",
        "FUNCTION_ID",
        "MEMORY_MB",
        "OUTPUT_DIR",
        "_HANDLER",
    ];
    for name in names {
        define(siege, json!({ "env": { name: "forged" } })).await.refused(400);
    }
}

async fn odd_names(siege: &Siege) {
    for name in ["", "A=B", "A\0B", "A\nB", "1A", "A B", "\u{430}", "A-B;x"] {
        define(siege, json!({ "env": { name: "x" } })).await.refused(400);
    }
    define(siege, json!({ "env": { "A": "x\0y" } })).await.refused(400);
}

async fn environment_without_end(siege: &Siege) {
    define(siege, json!({ "env": { "A": "x".repeat(1 << 20) } })).await.refused(400);
    let many: serde_json::Map<String, Value> = (0..5000).map(|n| (format!("N{n}"), json!(""))).collect();
    define(siege, json!({ "env": many })).await.refused(400);
}

fn nothing_injected(answer: &Answer) {
    assert!(answer.header("x-injected").is_none() && answer.header("set-cookie").is_none(), "{:?}", answer.headers);
}

async fn header_in_result(siege: &Siege) {
    let text = "a\r\nx-injected: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let answer = siege.mallory.run("echo", &json!(text)).send().await;
    assert_eq!(answer.expect(200)["result"], text);
    nothing_injected(&answer);
}

async fn header_in_error(siege: &Siege) {
    let source = "def handler(event, context):\n    raise type('Evil\\r\\nx-injected: 1', (Exception,), {})('a\\r\\nx-injected: 1')\n";
    siege.mallory.deploy_python("raises", source).await;
    let answer = siege.mallory.run("raises", &json!(1)).send().await;
    assert_eq!(answer.expect(200)["status"], "FAILED");
    assert_eq!(answer.header("x-faasd-function-error"), Some("FunctionError"));
    nothing_injected(&answer);
}

/// What the caller sends is not sent back as a header of ours.
async fn header_in_request(siege: &Siege) {
    let own = "6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11\"><script>";
    let answer = siege.mallory.get("/functions").header("x-request-id", own).send().await;
    assert!(answer.header("x-request-id").is_some_and(|id| !id.contains('<')), "{:?}", answer.headers);
    let answer = siege.mallory.get("/functions/a%0d%0ax-injected:1").send().await;
    nothing_injected(&answer);
    let answer = siege.mallory.run("echo", &json!(1)).header("origin", "https://evil.example").send().await;
    assert!(answer.header("access-control-allow-origin").is_none(), "{:?}", answer.headers);
}

async fn post(siege: &Siege, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = siege.mallory.request(Method::POST, path).header("content-type", "application/json");
    request.body(body.into()).send().await
}

async fn deep(siege: &Siege) {
    let nested = |head: &str, tail: &str| format!("{head}{}{}{tail}", "[".repeat(500_000), "]".repeat(500_000));
    let answer = post(siege, "/run", nested(r#"{"name":"echo","inputData":"#, "}")).await;
    assert!(answer.status == 400 || answer.expect(200)["status"] == "FAILED", "{}", answer.text());
    for (path, head) in [("/functions", r#"{"name":"deep","runtime":"python","code":"#), ("/functions", r#"{"deep":"#)]
    {
        post(siege, path, nested(head, "}")).await.refused(400);
    }
    post(siege, "/run", nested(r#"{"name":"#, "}")).await.refused(400);
}

/// Whichever of two would be taken, a check that read the other one would be passed by.
async fn twice(siege: &Siege) {
    for body in [r#"{"name":"echo","name":"canary","inputData":1}"#, r#"{"name":"canary","name":"echo","inputData":1}"#]
    {
        let answer = post(siege, "/run", body).await;
        assert!([400, 404].contains(&answer.status), "{}", answer.text());
    }
    let body = r#"{"name":"ok","name":"..","runtime":"python","code":{"inline":"def handler(e,c): pass"}}"#;
    post(siege, "/functions", body).await.refused(400);
}

async fn numbers(siege: &Siege) {
    for number in ["1e400", "99999999999999999999999999", "-0.0", "1e-400", "128.5", "1E+309", "0x80", "NaN"] {
        let body = format!(
            r#"{{"name":"big","runtime":"python","code":{{"inline":"def handler(e,c): pass"}},"memoryMb":{number}}}"#
        );
        post(siege, "/functions", body).await.refused(400);
    }
    let digits = "9".repeat(100_000);
    let answer = post(siege, "/run", format!(r#"{{"name":"echo","inputData":{digits}}}"#)).await;
    assert!([200, 400].contains(&answer.status), "{}", answer.status);
    let answer = post(siege, "/run", r#"{"name":"echo","inputData":1e999999}"#).await;
    assert!([200, 400].contains(&answer.status), "{}", answer.text());
}

async fn keys(siege: &Siege) {
    let many: Vec<String> = (0..50_000).map(|n| format!("\"k{n}\":{n}")).collect();
    post(siege, "/functions", format!("{{{}}}", many.join(","))).await.refused(400);
    let answer = post(siege, "/run", format!(r#"{{"name":"echo","inputData":{{{}}}}}"#, many.join(","))).await;
    assert_eq!(answer.expect(200)["status"], "SUCCESS");
}

async fn broken_text(siege: &Siege) {
    post(siege, "/run", b"{\"name\":\"echo\",\"inputData\":\"\xff\xfe\"}".to_vec()).await.refused(400);
    post(siege, "/run", b"\xef\xbb\xbf{\"name\":\"..\",\"inputData\":1}".to_vec()).await.refused(400);
    let answer = post(siege, "/run", r#"{"name":"echo","inputData":"\ud800"}"#).await;
    assert!([200, 400].contains(&answer.status), "{}", answer.text());
    post(siege, "/functions", r#"{"name":"\ud800"}"#).await.refused(400);
}

async fn none(siege: &Siege) {
    for body in ["", "{", "<xml/>", "name=echo", "{}{}", "null", "{\"name\":\"echo\",\"inputData\":1}x", "'{}'"] {
        post(siege, "/run", body).await.refused(400);
    }
    let xml = r#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>"#;
    let answer = post(siege, "/functions", xml).await;
    answer.refused(400);
    assert!(!answer.text().contains("root:"));
}

async fn handler(siege: &Siege) {
    for handler in [
        "../../etc/passwd.f",
        "/etc/passwd.f",
        "main.__class__",
        "os.system",
        "subprocess.run",
        "main..f",
        "\0.f",
        "main.f\n",
    ] {
        let answer = define(siege, json!({ "name": "texts", "handler": handler })).await;
        if answer.status != 201 {
            assert!([400, 422].contains(&answer.status), "{handler:?}: {}", answer.text());
            continue;
        }
        let record = siege.mallory.call("texts", &json!("id")).await;
        // What the package doesn't define is not called; what it does is called as what it is.
        assert!(record["status"] == "FAILED" && record["stdout"] == "", "{handler:?}: {record}");
        siege.mallory.delete("/functions/texts").send().await.expect(200);
    }
}

/// What a function prints is text of its record, not lines of the daemon's log or events of somebody's stream.
async fn forged_lines(siege: &Siege) {
    let source = "def handler(event, context):\n    print('event: result\\ndata: {\"status\":\"FORGED\"}\\n\\n', flush=True)\n    \
                  print('\\r\\nid: 99\\r\\nevent: result\\r\\ndata: {}\\r\\n\\r\\n', flush=True)\n    \
                  print('2026-01-01T00:00:00Z ERROR faasd forged-line-71', flush=True)\n    return 'real'\n";
    siege.mallory.deploy_python("forger", source).await;
    let events = siege.mallory.run("forger", &json!(1)).events().await.rest().await;
    let results: Vec<_> = events.iter().filter(|event| event.kind == "result").collect();
    assert_eq!(results.len(), 1, "{events:?}");
    assert_eq!(results[0].json()["result"], "real", "{events:?}");
    assert!(events.iter().any(|event| event.kind == "log" && event.data.contains("FORGED")), "it was printed");
    assert!(!siege.daemon.log().contains("forged-line-71"), "the daemon's log has it");
}
