//! The `nodejs` runtime: how handlers are found and called.

use serde_json::{Value, json};

use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, zipped};

async fn deploy_file(daemon: &Daemon, name: &str, file: &str, source: &str) {
    daemon.deploy(zipped(name, "nodejs", &zip(&[(file, source.as_bytes())]))).await;
}

#[tokio::test]
async fn handlers_of_every_kind_are_called() {
    let daemon = Daemon::start().await;
    for (name, file, source) in [
        ("sync", "index.js", "exports.handler = (event) => ['sync', event];"),
        (
            "async",
            "index.js",
            "exports.handler = async (event) => { await new Promise(r => setTimeout(r, 5)); return ['async', event]; };",
        ),
        (
            "callback",
            "index.js",
            "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, ['callback', event]), 5); };",
        ),
        ("mjs", "index.mjs", "export const handler = async (event) => ['mjs', event];"),
        ("cjs", "index.cjs", "module.exports.handler = (event) => ['cjs', event];"),
    ] {
        deploy_file(&daemon, name, file, source).await;
        for i in 0..2 {
            assert_eq!(daemon.result(name, &json!(i)).await, json!([name, i]), "{name}");
        }
    }
}

#[tokio::test]
async fn a_module_without_exports_runs_as_a_script() {
    let daemon = Daemon::start().await;
    let source =
        "const input = JSON.parse(process.env.PAYLOAD);\nconsole.log(JSON.stringify({ doubled: input.n * 2 }));\n";
    daemon.deploy(inline("f", "nodejs", source)).await;
    for n in [1, 21] {
        let record = daemon.call("f", &json!({ "n": n })).await;
        assert_eq!(record["status"], "SUCCESS", "{record}");
        assert_eq!(record["result"], json!({ "doubled": n * 2 }), "{record}");
    }
}

#[tokio::test]
async fn errors_of_every_kind_are_failures_with_the_user_s_line() {
    let daemon = Daemon::start().await;
    for (name, source) in [
        ("throws", "exports.handler = (event) => {\n  throw new TypeError('as asked');\n};"),
        ("rejects", "exports.handler = async (event) => {\n  throw new TypeError('as asked');\n};"),
        ("calls", "exports.handler = (event, context, callback) => {\n  callback(new TypeError('as asked'));\n};"),
    ] {
        deploy_file(&daemon, name, "index.js", source).await;
        for start in ["first", "second"] {
            let record = daemon.call(name, &json!({})).await;
            assert_eq!(
                (&record["status"], &record["errorType"]),
                (&json!("FAILED"), &json!("FunctionError")),
                "{name} {record}"
            );
            let words = format!("{} {}", record["errorMessage"], record["stackTrace"]);
            assert!(words.contains("TypeError") && words.contains("as asked"), "{name} {start}: {words}");
            assert!(words.contains("index.js:2"), "{name}: {words}");
        }
        assert_eq!(daemon.call(name, &json!({})).await["startType"], "WARM", "{name}");
    }
}

#[tokio::test]
async fn context_output_and_state_are_as_in_python() {
    let daemon = Daemon::start().await;
    let source = "let calls = 0;\nexports.handler = async (event, context) => {\n  calls += 1;\n  console.log('out', calls);\n  \
                  console.error('err', calls);\n  return { calls, id: context.awsRequestId, name: context.functionName, \
                  left: context.getRemainingTimeInMillis(), job: process.env.JOB_ID };\n};";
    deploy_file(&daemon, "f", "index.js", source).await;
    for n in [1, 2] {
        let record = daemon.call("f", &json!({})).await;
        assert_eq!(record["status"], "SUCCESS", "{record}");
        assert_eq!(record["result"]["calls"], n);
        assert_eq!((&record["result"]["id"], &record["result"]["job"]), (&record["requestId"], &record["requestId"]));
        assert_eq!(record["result"]["name"], "f");
        assert!(record["result"]["left"].as_u64().is_some_and(|left| left > 1000 && left <= 30_000), "{record}");
        assert_eq!(
            (&record["stdout"], &record["stderr"]),
            (&json!(format!("out {n}\n")), &json!(format!("err {n}\n")))
        );
    }
}

#[tokio::test]
async fn code_that_does_not_load_is_an_init_error() {
    let daemon = Daemon::start().await;
    for (name, source, word) in [
        ("syntax", "exports.handler = (event) => {{{;", "SyntaxError"),
        ("import", "require('absent-module');\nexports.handler = () => 1;", "absent-module"),
    ] {
        deploy_file(&daemon, name, "index.js", source).await;
        let record = daemon.call(name, &json!({})).await;
        assert_eq!(record["errorType"], "InitError", "{name} {record}");
        let words = format!("{} {}", record["errorMessage"], record["stackTrace"]);
        assert!(words.contains(word), "{words}");
    }
}

#[tokio::test]
async fn undefined_is_null_and_process_exit_is_named() {
    let daemon = Daemon::start().await;
    deploy_file(&daemon, "f", "index.js", "exports.handler = async (event) => { if (event) process.exit(3); };").await;
    let record = daemon.call("f", &json!(0)).await;
    assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &Value::Null));
    let crash = daemon.call("f", &json!(1)).await;
    assert_eq!((&crash["errorType"], &crash["exitCode"]), (&json!("Crashed"), &json!(3)), "{crash}");
    assert_eq!(daemon.call("f", &json!(0)).await["status"], "SUCCESS");
}
