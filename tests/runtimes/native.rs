//! The runtimes of compiled code: `provided`, `cpp`, `go`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::archive::zip_with_modes;
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, zipped};

/// Speaks the Lambda Runtime API with nothing but the interpreter every machine has: next, response, error.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os, sys
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
calls = 0
while True:
    link = http.client.HTTPConnection(api)
    link.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = link.getresponse()
    request_id = answer.getheader("Lambda-Runtime-Aws-Request-Id")
    deadline = int(answer.getheader("Lambda-Runtime-Deadline-Ms"))
    event = json.loads(answer.read())
    calls += 1
    print("got", event, flush=True)
    if event == "fail":
        path, body = "error", {"errorType": "Ours", "errorMessage": "as asked", "stackTrace": ["bootstrap:1"]}
    else:
        path, body = "response", {"echo": event, "calls": calls, "id": request_id, "deadline": deadline > 0}
    link = http.client.HTTPConnection(api)
    link.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/{path}", json.dumps(body))
    link.getresponse().read()
"#;

const CPP_ECHO: &str = r#"#include <iostream>
#include <iterator>
#include <string>
int main() {
    std::string input{std::istreambuf_iterator<char>(std::cin), {}};
    std::cerr << "read " << input.size() << " bytes\n";
    std::cout << "{\"echo\":" << input << "}\n";
}
"#;

#[tokio::test]
async fn a_bootstrap_speaks_the_runtime_api() {
    let daemon = Daemon::start().await;
    let archive = zip_with_modes([("bootstrap", 0o755, BOOTSTRAP.as_bytes())]);
    daemon.deploy(zipped("f", "provided.al2023", &archive)).await;
    for calls in [1, 2] {
        let record = daemon.call("f", &json!({ "n": calls })).await;
        assert_eq!(record["status"], "SUCCESS", "{record}");
        let expected = json!({ "echo": { "n": calls }, "calls": calls, "id": record["requestId"], "deadline": true });
        assert_eq!(record["result"], expected, "one process for all calls");
        assert!(record["stdout"].as_str().is_some_and(|out| out.starts_with("got ")), "{record}");
    }
    let failed = daemon.call("f", &json!("fail")).await;
    assert_eq!((&failed["status"], &failed["errorType"]), (&json!("FAILED"), &json!("FunctionError")), "{failed}");
    assert!(failed["errorMessage"].as_str().is_some_and(|message| message.contains("as asked")), "{failed}");
    assert_eq!(daemon.result("f", &json!("on")).await["calls"], 4, "and it lives on");
}

#[tokio::test]
async fn a_bootstrap_that_is_not_there_or_not_executable_is_refused_or_mended() {
    let daemon = Daemon::start().await;
    let absent = zip_with_modes([("other", 0o755, b"x".as_slice())]);
    let (sentence, _) = daemon.post("/functions", &zipped("f", "provided", &absent)).send().await.refused(422);
    assert!(sentence.contains("bootstrap"), "{sentence}");
    let garbage = zip_with_modes([("bootstrap", 0o755, b"\x00\x01 no program".as_slice())]);
    daemon.deploy(zipped("garbage", "provided", &garbage)).await;
    let record = daemon.call("garbage", &json!({})).await;
    assert_eq!(record["status"], "FAILED", "{record}");
    assert!(["InitError", "Crashed"].contains(&record["errorType"].as_str().unwrap_or_default()), "{record}");
}

#[tokio::test]
async fn cpp_is_compiled_at_deploy_and_reads_its_input() {
    let daemon = Daemon::start().await;
    daemon.deploy(inline("f", "cpp", CPP_ECHO)).await;
    for i in 0..3 {
        let record = daemon.call("f", &json!({ "i": i })).await;
        assert_eq!(record["result"], json!({ "echo": { "i": i } }), "{record}");
        assert!(record["stderr"].as_str().is_some_and(|err| err.starts_with("read ")), "{record}");
    }
}

#[tokio::test]
async fn what_the_compiler_says_is_the_answer() {
    let daemon = Daemon::start().await;
    let source = "int main() {\n    return no_such_name;\n}\n";
    let answer = daemon.post("/functions", &inline("f", "cpp", source)).send().await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let words = answer.text();
    assert!(words.contains("no_such_name") && words.contains("main.cpp:2"), "{words}");
    daemon.get("/functions/f").send().await.refused(404);
}

/// The compiler runs in a sandbox too: what it is asked to include can't be the host's.
#[tokio::test]
async fn the_compiler_cannot_read_the_host() {
    let daemon = Daemon::start().await;
    let key = daemon.data_dir().join("admin.key");
    for path in ["/etc/shadow".to_owned(), key.display().to_string()] {
        let source = format!("#include \"{path}\"\nint main() {{}}\n");
        let answer = daemon.post("/functions", &inline("f", "cpp", &source)).send().await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(!answer.text().contains("root:") && !answer.text().contains(daemon.key()), "{}", answer.text());
    }
    let endless =
        "template<int N> struct A { static const int v = A<N+1>::v + A<N+2>::v; };\nint main() { return A<0>::v; }\n";
    let answer = daemon.post("/functions", &inline("g", "cpp", endless)).send().await;
    assert_eq!(answer.status, 422, "{}", answer.text());
}

#[tokio::test]
async fn an_exit_code_is_a_failure_with_that_code() {
    let daemon = Daemon::start().await;
    let source =
        "#include <cstdio>\nint main() { std::puts(\"so far\"); std::fputs(\"broken\\n\", stderr); return 3; }\n";
    daemon.deploy(inline("f", "cpp", source)).await;
    let record = daemon.call("f", &json!({})).await;
    assert_eq!((&record["status"], &record["exitCode"]), (&json!("FAILED"), &json!(3)), "{record}");
    assert_eq!((&record["stderr"], &record["errorType"]), (&json!("broken\n"), &json!("FunctionError")), "{record}");
}

/// A program built elsewhere needs no compiler here.
#[tokio::test]
async fn a_prebuilt_main_runs_as_it_is() {
    let daemon = Daemon::start().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, program): (PathBuf, PathBuf) = (dir.path().join("main.cpp"), dir.path().join("main"));
    fs::write(&source, CPP_ECHO).expect("the source");
    let built = Command::new("g++").arg("-static").arg("-O1").arg("-o").args([&program, &source]).status();
    assert!(built.is_ok_and(|status| status.success()), "needs g++: `make test` installs it");
    let program = fs::read(&program).expect("the program");
    for runtime in ["cpp", "go"] {
        let name = format!("{runtime}-prebuilt");
        daemon.deploy(zipped(&name, runtime, &zip_with_modes([("main", 0o755, program.as_slice())]))).await;
        assert_eq!(daemon.result(&name, &json!([1])).await, json!({ "echo": [1] }));
    }
}

#[tokio::test]
async fn go_is_compiled_at_deploy() {
    let daemon = Daemon::start().await;
    let source = "package main\n\nimport (\n\t\"fmt\"\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tinput, _ := io.ReadAll(os.Stdin)\n\t\
                  fmt.Printf(`{\"echo\":%s}`, input)\n}\n";
    let answer = daemon.post("/functions", &inline("f", "go", source)).send().await;
    assert_eq!(answer.status, 201, "needs go (`make test` installs it): {}", answer.text());
    assert_eq!(daemon.result("f", &json!({ "a": 1 })).await, json!({ "echo": { "a": 1 } }));
    let broken =
        daemon.post("/functions", &inline("g", "go", "package main\nfunc main() { undefinedName() }\n")).send().await;
    assert_eq!(broken.status, 422);
    assert!(broken.text().contains("undefinedName"), "{}", broken.text());
}
