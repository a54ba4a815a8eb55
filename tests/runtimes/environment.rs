//! What every runtime shows its code, whatever language that is in.

use serde_json::{Value, json};

use crate::support::archive::zip_with_modes;
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, merged, zipped};

const NAMES: [&str; 9] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "LAMBDA_TASK_ROOT",
    "JOB_ID",
    "FUNCTION_ID",
    "MEMORY_MB",
    "OUTPUT_DIR",
    "CITY",
];

const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def ask(method, path, body=None):
    api.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    answer = api.getresponse()
    answer.read()
    return answer.headers["Lambda-Runtime-Aws-Request-Id"]
while True:
    call = ask("GET", "next")
    seen = dict(os.environ, workspace=sorted(os.listdir("/workspace")))
    # A program of this kind is told of its call by the API; its environment is that of its start.
    seen["JOB_ID"] = call
    ask("POST", call + "/response", json.dumps(seen))
"#;

const CPP: &str = r#"#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <unistd.h>

int main() {
    std::putchar('{');
    for (const char *name : {NAMES}) {
        const char *value = std::getenv(name);
        std::printf("\"%s\":\"%s\",", name, value ? value : "absent");
    }
    std::printf("\"workspace\":[\"%s\"]}\n", access("/workspace/main", X_OK) ? "" : "main");
}
"#;

/// The program, with [`NAMES`] for it to print.
fn cpp() -> String {
    CPP.replace("NAMES", &NAMES.map(|name| format!("\"{name}\"")).join(", "))
}

const GO: &str = r#"package main

import (
	"encoding/json"
	"os"
	"strings"
)

func main() {
	seen := map[string]any{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		seen[name] = value
	}
	files := []string{}
	entries, _ := os.ReadDir("/workspace")
	for _, entry := range entries {
		files = append(files, entry.Name())
	}
	seen["workspace"] = files
	_ = json.NewEncoder(os.Stdout).Encode(seen)
}
"#;

async fn shows_its_environment(definition: Value, file: &str) {
    let daemon = Daemon::start().await;
    let settings = json!({ "env": { "CITY": "Turin" }, "memoryMb": 192 });
    let function = daemon.deploy(merged(definition, settings)).await;
    for _ in 0..2 {
        let record = daemon.call("f", &json!({})).await;
        assert_eq!(record["status"], "SUCCESS", "{record}");
        let seen = &record["result"];
        let call = record["requestId"].as_str().expect("an id");
        for (name, value) in
            NAMES.into_iter().zip(["f", "1", "192", "/var/task", call, &function.id, "192", "/output", "Turin"])
        {
            assert_eq!(seen[name], value, "{name} in {seen}");
        }
        let files = seen["workspace"].as_array().expect("the files of /workspace");
        assert!(files.iter().any(|name| name == file), "the code is in /workspace too: {seen}");
    }
}

#[tokio::test]
async fn python_has_its_environment() {
    let source =
        "import os\ndef handler(event, context):\n    return dict(os.environ, workspace=os.listdir('/workspace'))\n";
    shows_its_environment(inline("f", "python", source), "main.py").await;
}

#[tokio::test]
async fn nodejs_has_its_environment() {
    let source =
        "exports.handler = async () => ({ ...process.env, workspace: require('fs').readdirSync('/workspace') });\n";
    shows_its_environment(inline("f", "nodejs", source), "index.js").await;
}

#[tokio::test]
async fn provided_has_its_environment() {
    let archive = zip_with_modes([("bootstrap", 0o755, BOOTSTRAP.as_bytes())]);
    shows_its_environment(zipped("f", "provided", &archive), "bootstrap").await;
}

#[tokio::test]
async fn go_has_its_environment() {
    shows_its_environment(inline("f", "go", GO), "main").await;
}

#[tokio::test]
async fn cpp_has_its_environment() {
    shows_its_environment(inline("f", "cpp", &cpp()), "main").await;
}
