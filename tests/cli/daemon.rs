//! The client against a real daemon: what a user does at a terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{stderr, stdout};
use crate::support::daemon::{Builder, Daemon};

/// Prints a line each 300 ms.
const SLOW: &str = "import time
def handler(event, context):
    for n in range(4):
        print('line', n)
        time.sleep(0.3)
    return 'done'
";

fn command(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_faasd"));
    command.args(args).env_clear().env("FAASD_URL", format!("http://{}", daemon.address()));
    command.env("FAASD_API_KEY", daemon.key()).stdin(Stdio::null());
    command
}

async fn faasd(daemon: &Daemon, args: &[&str]) -> Output {
    let mut command = command(daemon, args);
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the executable starts")
}

/// When each line of `source` came, counted from now, up to `most` lines.
fn timed(source: impl std::io::Read, most: usize) -> Vec<(Duration, String)> {
    let began = Instant::now();
    BufReader::new(source).lines().take(most).map_while(Result::ok).map(|line| (began.elapsed(), line)).collect()
}

#[tokio::test]
async fn a_stream_shows_lines_as_they_are_printed() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("slow", SLOW).await;
    let mut child =
        command(&daemon, &["invoke", "slow", "{}", "--stream"]).stderr(Stdio::piped()).spawn().expect("starts");
    let printed = child.stderr.take().expect("a pipe");
    let lines = tokio::task::spawn_blocking(move || timed(printed, 100)).await.expect("no panic");
    let at =
        |text: &str| lines.iter().find(|line| line.1.ends_with(text)).unwrap_or_else(|| panic!("{text}: {lines:?}")).0;
    assert!(at("line 3") - at("line 0") > Duration::from_millis(600), "all at once, at the end: {lines:?}");
    assert!(child.wait().expect("it ends").success());
}

#[tokio::test]
async fn logs_follow_shows_what_ends_while_it_looks() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("slow", SLOW).await;
    let mut child = command(&daemon, &["logs", "slow", "--follow"]).stdout(Stdio::piped()).spawn().expect("starts");
    let printed = child.stdout.take().expect("a pipe");
    let reading = tokio::task::spawn_blocking(move || timed(printed, 5));
    daemon.call("slow", &json!({})).await;
    let lines = reading.await.expect("no panic");
    let _ = child.kill();
    let _ = child.wait();
    assert!(lines[0].1.contains("SUCCESS slow v1") && lines[4].1.ends_with("line 3"), "{lines:?}");
}

#[tokio::test]
async fn a_log_is_shown_by_its_invocation_also_when_the_result_is_gone() {
    let daemon = Daemon::with("RETENTION__RESULTS_S", 1).set("RETENTION__SWEEP_S", 1).start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    print('said')\n").await;
    let record = daemon.call("f", &json!({})).await;
    let id = record["requestId"].as_str().expect("an id");
    while daemon.get(&format!("/status/{id}")).send().await.status != 410 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let output = faasd(&daemon, &["logs", "f", "--id", id]).await;
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "said\n"), "{}", stderr(&output));
}

#[tokio::test]
async fn dead_letters_are_listed_looked_at_and_replayed() {
    let daemon = Daemon::with("QUEUE__ATTEMPTS_MAX", 1).start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    raise ValueError('not today')\n").await;
    let output = faasd(&daemon, &["invoke", "f", "{}", "--async"]).await;
    let id = stdout(&output).trim().to_owned();
    assert_eq!(daemon.wait_final(&id).await["status"], "DEAD");
    let list = faasd(&daemon, &["dead-letters"]).await;
    assert!(stdout(&list).contains(&id), "{}", stdout(&list));
    let show = faasd(&daemon, &["dead-letters", "show", &id]).await;
    assert!(stdout(&show).contains("not today"), "{}{}", stdout(&show), stderr(&show));
    let replay = faasd(&daemon, &["dead-letters", "replay", &id, "--json"]).await;
    assert_eq!(replay.status.code(), Some(0), "{}", stderr(&replay));
    let accepted: Value = serde_json::from_str(&stdout(&replay)).expect("JSON");
    let again = daemon.wait_final(accepted["jobId"].as_str().expect("an id")).await;
    assert_eq!(again["replayOf"], id.as_str());
    let gone = faasd(&daemon, &["dead-letters", "replay", &id]).await;
    assert_eq!(gone.status.code(), Some(4), "{}", stderr(&gone));
}

/// What each exit code means stands below `faasd --help`.
#[tokio::test]
async fn exit_codes_tell_the_function_s_failures_from_the_platform_s() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("good", "def handler(event, context):\n    return 1\n").await;
    daemon.deploy_python("bad", "def handler(event, context):\n    return 1 / 0\n").await;
    for (args, code) in [
        (&["invoke", "good", "{}"][..], 0),
        (&["invoke", "bad", "{}"], 1),
        (&["invoke", "bad", "{}", "--stream"], 1),
        (&["invoke", "good", "no json"], 2),
        (&["invoke", "absent", "{}"], 4),
        (&["functions", "--api-key", "wrong"], 4),
        (&["functions", "--url", "http://127.0.0.1:1"], 3),
    ] {
        let output = faasd(&daemon, args).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn a_relative_data_directory_is_as_good_as_any() {
    let daemon = Builder::default().with_relative_data_dir().start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    return event\n").await;
    assert_eq!(daemon.result("f", &json!(1)).await, 1);
}

#[tokio::test]
async fn the_daemon_may_open_as_many_files_as_the_machine_lets_it() {
    let daemon = Daemon::start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("the daemon's limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line on open files");
    let values: Vec<&str> = line["Max open files".len()..].split_whitespace().collect();
    assert_eq!(values[0], values[1], "soft and hard: {line}");
}
