//! What takes a program of one's own, or Node: other system call tables, the daemon's executable that runs native programs inside, the
//! interpreter's doors.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::probes::{Verdict, held};
use super::siege::Siege;
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, merged};

const PROGRAM: &str = include_str!("probes/native.cpp");
const SCRIPT: &str = include_str!("probes/doors.js");

const NATIVE: &[&str] = &[
    "system-calls-of-32-bits",
    "system-calls-of-x32",
    "runner-executable-overwrite",
    "runner-traced",
    "runner-memory-read",
    "runner-memory-file",
    "runner-descriptors",
];

/// How a call of the script may end.
const DOORS: &[(&str, &[&str])] = &[
    ("node-inspector", &["SUCCESS", "Crashed"]),
    ("node-child-processes", &["SUCCESS", "OutOfMemory", "Timeout"]),
    ("node-worker-threads", &["SUCCESS", "OutOfMemory", "Crashed"]),
    ("node-memory", &["OutOfMemory", "Crashed"]),
    ("node-array-buffers", &["OutOfMemory", "Crashed", "FunctionError"]),
    ("node-endless-loop", &["Timeout"]),
    ("node-endless-microtasks", &["Timeout", "OutOfMemory"]),
    ("node-unhandled-rejection", &["FunctionError", "Crashed", "SUCCESS"]),
    ("node-exits", &["Crashed", "FunctionError"]),
    ("node-result-with-traps", &["FunctionError", "SUCCESS", "Timeout"]),
];

pub fn ids() -> Vec<&'static str> {
    NATIVE.iter().copied().chain(DOORS.iter().map(|door| door.0)).collect()
}

#[tokio::test]
async fn other_languages_have_no_other_ways() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    siege.mallory.deploy(merged(inline("native", "cpp", PROGRAM), json!({ "timeoutMs": 10_000 }))).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (source, program) = (dir.path().join("native.cpp"), dir.path().join("native"));
    std::fs::write(&source, PROGRAM).expect("a file");
    let built = Command::new("g++").arg("-std=c++17").arg("-o").args([&program, &source]).status();
    assert!(built.is_ok_and(|status| status.success()), "needs g++: `make test` installs it");
    for id in NATIVE {
        let input = json!({ "attack": id });
        let as_root = control(&mut Command::new(&program), &input);
        let outcome = match as_root {
            Verdict { gained: false, absent: false, detail } => {
                Err(format!("proves nothing: root doesn't get it either: {detail}"))
            }
            _ => held(&siege.mallory.call("native", &input).await),
        };
        siege.judge(id, outcome).await;
    }

    let settings = json!({ "timeoutMs": 4000, "memoryMb": 128 });
    siege.mallory.deploy(merged(inline("doors", "nodejs", SCRIPT), settings)).await;
    assert_eq!(siege.mallory.result("doors", &json!({})).await, "fine", "the control");
    for (id, ends) in DOORS {
        let record = siege.mallory.call("doors", &json!({ "attack": id })).await;
        let end = record["errorType"].as_str().unwrap_or("SUCCESS");
        let began = record["stdout"].as_str().is_some_and(|text| text.starts_with("begin\n"));
        let gained = record["result"]["gained"] == true;
        let outcome = if began && ends.contains(&end) && !gained {
            Ok(())
        } else {
            Err(format!("ended otherwise than by {ends:?}: {record}"))
        };
        siege.judge(id, outcome).await;
        let next = siege.mallory.call("doors", &json!({})).await;
        let fine = if next["result"] == "fine" { Ok(()) } else { Err(format!("the next call: {next}")) };
        siege.judge(id, fine).await;
    }
    siege.lift();
}

fn control(program: &mut Command, input: &Value) -> Verdict {
    let child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("the control starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{input}: {error}: {output:?}"))
}
