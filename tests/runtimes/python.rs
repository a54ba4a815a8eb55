//! The `python` runtime: how handlers are found and called, what they are told, what of them is kept.

use serde_json::{Value, json};

use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{Deployed, zipped};

async fn deploy_files(daemon: &Daemon, name: &str, files: &[(&str, &str)]) -> Deployed {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(file, source)| (*file, source.as_bytes())).collect();
    daemon.deploy(zipped(name, "python", &zip(&files))).await
}

#[tokio::test]
async fn handlers_are_found_by_convention() {
    let daemon = Daemon::start().await;
    for (name, file, source) in [
        ("two", "main.py", "def handler(event, context):\n    return ['two', event]\n"),
        ("one", "main.py", "def handler(event):\n    return ['one', event]\n"),
        ("main", "main.py", "def main(event, context):\n    return ['main', event]\n"),
        ("main-one", "main.py", "def main(event):\n    return ['main-one', event]\n"),
        ("index", "index.py", "def handler(event, context):\n    return ['index', event]\n"),
        (
            "async",
            "main.py",
            "import asyncio\nasync def handler(event, context):\n    await asyncio.sleep(0.01)\n    return ['async', event]\n",
        ),
        ("default", "main.py", "def handler(event, context=None, extra=3):\n    return ['default', event]\n"),
        (
            "class",
            "main.py",
            "class H:\n    def __call__(self, event, context):\n        return ['class', event]\nhandler = H()\n",
        ),
    ] {
        deploy_files(&daemon, name, &[(file, source)]).await;
        for i in 0..2 {
            assert_eq!(daemon.result(name, &json!(i)).await, json!([name, i]), "{name}");
        }
    }
}

#[tokio::test]
async fn a_handler_can_be_named() {
    let daemon = Daemon::start().await;
    let files = zip(&[
        ("app.py", b"def run(event, context):\n    return 'app'\n"),
        ("pkg/mod.py", b"def f(e, c):\n    return 'pkg'\n"),
    ]);
    for (name, handler, expected) in [("a", "app.run", "app"), ("b", "pkg/mod.f", "pkg"), ("c", "pkg.mod.f", "pkg")] {
        let mut definition = zipped(name, "python", &files);
        definition["handler"] = json!(handler);
        daemon.deploy(definition).await;
        assert_eq!(daemon.result(name, &json!({})).await, expected, "{handler}");
    }
}

#[tokio::test]
async fn module_state_persists_between_warm_calls_and_ends_with_a_version() {
    let daemon = Daemon::start().await;
    let source = "calls = []\ndef handler(event, context):\n    calls.append(event)\n    return calls\n";
    daemon.deploy_python("f", source).await;
    assert_eq!(daemon.result("f", &json!(1)).await, json!([1]));
    assert_eq!(daemon.result("f", &json!(2)).await, json!([1, 2]));
    let patch = daemon.request(http::Method::PATCH, "/functions/f").json(&json!({ "description": "again" }));
    patch.send().await.expect(200);
    assert_eq!(daemon.result("f", &json!(3)).await, json!([3]), "another version, another sandbox");
}

#[tokio::test]
async fn an_exception_shows_the_user_s_own_file_and_line() {
    let daemon = Daemon::start().await;
    let main = "import deep\n\ndef handler(event, context):\n    return deep.fall(event)\n";
    let deep = "def fall(event):\n    city = event['city']\n    raise LookupError('no city ' + city)\n";
    deploy_files(&daemon, "f", &[("main.py", main), ("deep.py", deep)]).await;
    let answer = daemon.run("f", &json!({ "city": "Ys" })).send().await;
    let record = answer.expect(200);
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("FunctionError")));
    let message = record["errorMessage"].as_str().expect("a message");
    assert!(message.contains("LookupError") && message.contains("no city Ys"), "{message}");
    assert_eq!(answer.header("x-faasd-function-error"), Some("FunctionError"));
    let frames: Vec<&str> = record["stackTrace"].as_array().expect("frames").iter().filter_map(Value::as_str).collect();
    let trace = frames.join("\n");
    let (outer, inner) = (trace.find("main.py").expect("main.py"), trace.find("deep.py").expect("deep.py"));
    assert!(outer < inner, "outermost first: {trace}");
    assert!(frames[0].contains("main.py") && frames[0].contains('4'), "the first frame is the user's: {trace}");
    assert!(trace.contains('3') && !trace.contains("shim") && !trace.contains("bootstrap"), "{trace}");
}

#[tokio::test]
async fn the_context_is_lambda_s_and_ours() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    return {\n        'aws': [context.aws_request_id, context.function_name, context.function_version,\n        \
                  context.memory_limit_in_mb, context.invoked_function_arn, context.log_group_name, context.log_stream_name],\n        \
                  'left': context.get_remaining_time_in_millis(),\n        \
                  'ours': [context.request_id, context.function_id, context.model_id, context.memory_mb]}\n";
    let function = daemon.deploy_python_with("f", source, json!({ "timeoutMs": 7000, "memoryMb": 192 })).await;
    let request = json!({ "name": "f", "inputData": {}, "modelId": "llama" });
    let record = daemon.post("/run", &request).send().await.expect(200);
    let (id, result) = (&record["requestId"], &record["result"]);
    assert_eq!((&result["aws"][0], &result["ours"][0]), (id, id), "{record}");
    assert_eq!(result["aws"][1], "f");
    assert_eq!(
        result["aws"][2].as_str().map(str::to_owned).or(result["aws"][2].as_u64().map(|n| n.to_string())),
        Some("1".to_owned())
    );
    assert_eq!(
        result["aws"][3].as_str().map(str::to_owned).or(result["aws"][3].as_u64().map(|n| n.to_string())),
        Some("192".to_owned())
    );
    assert_eq!(result["ours"], json!([id, function.id, "llama", 192]));
    assert!(result["left"].as_u64().is_some_and(|left| left > 3000 && left <= 7000), "{result}");
    let without = daemon.call("f", &json!({})).await;
    assert!(without["result"]["ours"][2].is_null());
}

#[tokio::test]
async fn the_environment_is_the_platform_s_and_the_user_s() {
    let daemon = Daemon::start().await;
    let source = "import os\ndef handler(event, context):\n    return dict(os.environ)\n";
    let settings = json!({ "env": { "TABLE": "cities", "UMLAUT": "ü=\n" }, "memoryMb": 192 });
    let function = daemon.deploy_python_with("f", source, settings).await;
    let record = daemon.call("f", &json!({})).await;
    let env = &record["result"];
    for (name, value) in [
        ("TABLE", json!("cities")),
        ("UMLAUT", json!("ü=\n")),
        ("AWS_LAMBDA_FUNCTION_NAME", json!("f")),
        ("AWS_LAMBDA_FUNCTION_VERSION", json!("1")),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", json!("192")),
        ("LAMBDA_TASK_ROOT", json!("/var/task")),
        ("FUNCTION_ID", json!(function.id)),
        ("MEMORY_MB", json!("192")),
        ("OUTPUT_DIR", json!("/output")),
        ("JOB_ID", record["requestId"].clone()),
    ] {
        assert_eq!(env[name], value, "{name} in {env}");
    }
    assert!(env.as_object().expect("an object").keys().all(|name| !name.starts_with("FAASD_")), "{env}");
    let second = daemon.call("f", &json!({})).await;
    assert_eq!(second["result"]["JOB_ID"], second["requestId"], "of this call, not of the first");
}

#[tokio::test]
async fn files_left_in_output_are_kept_and_gone_before_the_next_call() {
    let daemon = Daemon::start().await;
    let source = "import os\ndef handler(event, context):\n    before = sorted(os.listdir('/output'))\n    if event:\n        \
                  os.makedirs('/output/sub', exist_ok=True)\n        open('/output/a.txt', 'w').write('hello')\n        \
                  open('/output/sub/b.bin', 'wb').write(bytes(1000))\n    return before\n";
    daemon.deploy_python("f", source).await;
    let record = daemon.call("f", &json!(true)).await;
    let mut files: Vec<(String, u64)> = record["outputFiles"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| (file["name"].as_str().expect("a name").to_owned(), file["sizeBytes"].as_u64().expect("a size")))
        .collect();
    files.sort();
    assert_eq!(files, [("a.txt".to_owned(), 5), ("sub/b.bin".to_owned(), 1000)]);
    let id = record["requestId"].as_str().expect("an id");
    let file = async |name: &str| daemon.get(&format!("/invocations/{id}/files/{name}")).send().await;
    assert_eq!(file("a.txt").await.text(), "hello");
    let binary = file("sub/b.bin").await;
    assert_eq!((binary.status, binary.body.len()), (200, 1000));
    assert_eq!(binary.header("content-disposition"), Some("attachment"), "never shown as a page of ours");
    for absent in ["b.bin", "sub", "sub/..%2Fa.txt", "%2Fetc%2Fpasswd"] {
        file(absent).await.refused(404);
    }
    let next = daemon.call("f", &json!(false)).await;
    assert_eq!((&next["result"], &next["outputFiles"]), (&json!([]), &json!([])), "{next}");
}

#[tokio::test]
async fn values_that_are_no_json_fail_the_call_and_not_the_sandbox() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    return {'set': {1, 2}} if event else 'fine'\n";
    daemon.deploy_python("f", source).await;
    let record = daemon.call("f", &json!(true)).await;
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("FunctionError")), "{record}");
    let next = daemon.call("f", &json!(false)).await;
    assert_eq!((&next["result"], &next["startType"]), (&json!("fine"), &json!("WARM")));
}

#[tokio::test]
async fn a_result_above_the_limit_is_named_so() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python_with("f", "def handler(event, context):\n    return 'x' * event\n", json!({ "memoryMb": 256 }))
        .await;
    let record = daemon.call("f", &json!(7 << 20)).await;
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("OutputTooLarge")), "{record}");
    assert_eq!(daemon.result("f", &json!(1 << 20)).await.as_str().map(str::len), Some(1 << 20));
}

#[tokio::test]
async fn sys_exit_and_base_exceptions_are_failures_of_the_function() {
    let daemon = Daemon::start().await;
    let source = "import sys\ndef handler(event, context):\n    if event == 'exit':\n        sys.exit(4)\n    \
                  if event == 'interrupt':\n        raise KeyboardInterrupt()\n    return 'fine'\n";
    daemon.deploy_python("f", source).await;
    for how in ["exit", "interrupt"] {
        let record = daemon.call("f", &json!(how)).await;
        assert_eq!(record["status"], "FAILED", "{how}: {record}");
        assert_eq!(daemon.result("f", &json!("")).await, "fine", "after {how}");
    }
}

/// Prints before the first call, at import, belong to somebody: the call that caused the import.
#[tokio::test]
async fn an_import_that_fails_shows_why_every_time() {
    let daemon = Daemon::start().await;
    daemon
        .deploy_python("f", "print('loading')\nimport absent_module\ndef handler(event, context):\n    return 1\n")
        .await;
    for _ in 0..2 {
        let record = daemon.call("f", &json!({})).await;
        assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("InitError")), "{record}");
        let words = format!("{}{}", record["errorMessage"], record["stackTrace"]);
        assert!(words.contains("absent_module") && words.contains("main.py"), "{words}");
        assert!(record["stdout"].as_str().is_some_and(|out| out.contains("loading")), "{record}");
    }
}
