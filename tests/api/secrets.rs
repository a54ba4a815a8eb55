//! Values of functions' environments: sealed on disk, shown nowhere, and what becomes of them when keys change or get lost.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::daemon::Daemon;

const SECRET: &str = "s3cret-4f9a1c77-value";
const READER: &str = "import os\ndef handler(event, context):\n    return len(os.environ['TOKEN'])\n";

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Files below `folder` that hold `text`.
fn with_text(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    walk(folder, &mut files);
    assert!(files.len() > 3, "only {} files: looked in the wrong place", files.len());
    files.into_iter().filter(|file| std::fs::read(file).is_ok_and(|bytes| holds(&bytes, text))).collect()
}

async fn deployed(daemon: &Daemon) {
    daemon.deploy_python_with("reader", READER, json!({ "env": { "TOKEN": SECRET } })).await;
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
}

#[tokio::test]
async fn a_value_is_in_no_file_no_answer_no_log_and_no_process_list() {
    let daemon = Daemon::with("LOG__LEVEL", "trace").start().await;
    deployed(&daemon).await;
    daemon.wait_final(&daemon.submit("reader", &json!({})).await).await;
    for change in [json!({ "env": { "TOKEN": SECRET, "1BAD": "x" } }), json!({ "env": { "TOKEN": [SECRET] } })] {
        let refused = daemon.request(Method::PATCH, "/functions/reader").json(&change).send().await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(!refused.text().contains(SECRET), "{}", refused.text());
    }
    let whole = json!({ "env": SECRET });
    let refused = daemon.request(Method::PATCH, "/functions/reader").json(&whole).send().await;
    assert!(refused.status == 400 && !refused.text().contains(SECRET), "{}", refused.text());
    for path in ["/functions", "/functions/reader", "/functions/reader/versions", "/logs", "/metrics", "/system/status"]
    {
        assert!(!daemon.get(path).send().await.text().contains(SECRET), "{path}");
    }
    assert_eq!(with_text(&daemon.data_dir(), SECRET), Vec::<PathBuf>::new());
    assert!(!daemon.log().contains(SECRET), "in the log");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap_or_default();
    let own: Vec<String> = children.split_whitespace().map(str::to_owned).chain([daemon.pid().to_string()]).collect();
    for pid in own {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!holds(&bytes, SECRET), "/proc/{pid}/{file}");
        }
    }
}

#[tokio::test]
async fn nobody_else_reads_the_data_directory() {
    let daemon = Daemon::start().await;
    deployed(&daemon).await;
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&daemon.data_dir()), 0o700);
    let mut checked = 0;
    for entry in std::fs::read_dir(daemon.data_dir()).expect("the data directory").flatten() {
        let wanted = if entry.path().is_dir() { 0o700 } else { 0o600 };
        // Where the launcher mounts what sandboxes see.
        if entry.file_name() != "run" {
            assert_eq!(mode(&entry.path()), wanted, "{}", entry.path().display());
            checked += 1;
        }
    }
    assert!(checked >= 5, "only {checked} entries");
}

fn database(daemon: &Daemon) -> rusqlite::Connection {
    rusqlite::Connection::open(daemon.data_dir().join("faasd.db")).expect("the database")
}

async fn stopped(daemon: &mut Daemon) {
    let (status, _) = daemon.sigterm(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn values_from_before_there_was_a_key_are_sealed_at_the_start() {
    let mut daemon = Daemon::start().await;
    deployed(&daemon).await;
    stopped(&mut daemon).await;
    let plain = format!(r#"{{"TOKEN":"{SECRET}"}}"#);
    assert_eq!(database(&daemon).execute("UPDATE versions SET env = ?1", [plain]).expect("written"), 1);
    assert!(!with_text(&daemon.data_dir(), SECRET).is_empty(), "the test's own value is not there");
    daemon.restart().await;
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
    assert_eq!(with_text(&daemon.data_dir(), SECRET), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_row_copied_over_another_opens_nothing() {
    let mut daemon = Daemon::start().await;
    deployed(&daemon).await;
    let spy = "import os\ndef handler(event, context):\n    return os.environ.get('TOKEN')\n";
    daemon.deploy_python("spy", spy).await;
    stopped(&mut daemon).await;
    let stolen = "UPDATE versions SET env = (SELECT env FROM versions WHERE body LIKE '%\"reader\"%') WHERE body LIKE '%\"spy\"%'";
    assert_eq!(database(&daemon).execute(stolen, []).expect("written"), 1);
    daemon.restart().await;
    let answer = daemon.run("spy", &json!({})).send().await;
    answer.refused(500);
    assert!(!answer.text().contains(SECRET), "{}", answer.text());
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
}

#[tokio::test]
async fn a_key_is_followed_by_the_next_and_can_go() {
    let mut daemon = Daemon::start().await;
    deployed(&daemon).await;
    stopped(&mut daemon).await;
    let file = daemon.data_dir().join("secrets.key");
    let old = std::fs::read_to_string(&file).expect("the key file");
    let new = "5c".repeat(32);
    std::fs::write(&file, format!("{old}# the next\n{new}\n")).expect("written");
    daemon.restart().await;
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
    stopped(&mut daemon).await;
    std::fs::write(&file, format!("{new}\n")).expect("written");
    daemon.restart().await;
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
    assert!(!daemon.log().contains(&new) && !daemon.log().contains(old.trim()), "a key is in the log");
}

#[tokio::test]
async fn without_the_key_the_daemon_says_what_to_do_and_does_not_start() {
    let mut daemon = Daemon::start().await;
    deployed(&daemon).await;
    stopped(&mut daemon).await;
    let wrong = "ab".repeat(32);
    for (key, words) in [(wrong.as_str(), "put back the key file"), ("no-key", "64 hex digits")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faasd"));
        command.args(["--listen", "127.0.0.1:0", "--isolation", "auto", "--data-dir"]).arg(daemon.data_dir());
        command.env("FAASD_SECRETS__KEY", key).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(3) && said.contains(words), "{words}: {said}");
        assert!(!said.contains(key), "the key is shown: {said}");
    }
    daemon.restart().await;
    assert_eq!(daemon.result("reader", &json!({})).await, SECRET.len());
}

#[tokio::test]
async fn a_key_in_the_environment_is_passed_to_no_child_and_shown_by_no_command() {
    let key = "7e".repeat(32);
    let daemon = Daemon::with("SECRETS__KEY", &key).start().await;
    deployed(&daemon).await;
    assert!(!daemon.data_dir().join("secrets.key").exists(), "a second key was made");
    daemon.deploy_python("look", "import os\ndef handler(event, context):\n    return dict(os.environ)\n").await;
    let seen = daemon.result("look", &json!({})).await.to_string();
    assert!(!seen.contains(&key) && !seen.contains("FAASD_SECRETS"), "{seen}");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).expect("children");
    assert!(!children.trim().is_empty(), "no launcher");
    for pid in children.split_whitespace() {
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!holds(&bytes, &key), "child {pid}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_faasd"));
    command.args(["config", "check"]).env("FAASD_SECRETS__KEY", &key).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("***") && !said.contains(&key), "{said}");
    assert!(!daemon.log().contains(&key) && with_text(&daemon.data_dir(), &key).is_empty());
}
