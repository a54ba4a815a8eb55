//! Logs: what ran, what it printed, found again by function, time, status and id.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::platform::page;

const SOURCE: &str = "import sys\ndef handler(event, context):\n    print('to stdout', event)\n    \
                      print('to stderr', event, file=sys.stderr)\n    if event == 'bad':\n        raise RuntimeError('as asked')\n    \
                      return {'for': event}\n";

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item["requestId"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn prints_are_apart_from_each_other_and_from_the_result() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", SOURCE).await;
    let record = daemon.call("f", &json!("x")).await;
    assert_eq!(record["stdout"], "to stdout x\n");
    assert_eq!(record["stderr"], "to stderr x\n");
    assert_eq!(record["result"], json!({ "for": "x" }));
}

#[tokio::test]
async fn logs_are_newest_first_filtered_and_paged() {
    let daemon = Daemon::start().await;
    let function = daemon.deploy_python("f", SOURCE).await;
    let mut called = Vec::new();
    let mut middle = String::new();
    for i in 0..12 {
        let input = if i % 4 == 3 { json!("bad") } else { json!(i) };
        let record = daemon.call("f", &input).await;
        called.push(record["requestId"].as_str().expect("an id").to_owned());
        if i == 6 {
            middle = record["createdAt"].as_str().expect("a time").to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    called.reverse();
    let path = format!("/functions/{}/logs", function.id);
    let listed = wait_for(&daemon, &path, 12).await;
    assert_eq!(ids(&listed), called);
    assert_eq!(ids(&daemon.list_all(&path, 5).await), called, "page by page");
    assert_eq!(ids(&daemon.list_all("/functions/f/logs", 100).await), called, "by name");
    assert_eq!(ids(&daemon.list_all("/logs", 7).await), called, "of all functions");

    let failed = daemon.list_all(&format!("{path}?status=FAILED"), 100).await;
    assert_eq!(failed.len(), 3);
    assert!(failed.iter().all(|record| record["status"] == "FAILED"));
    let since = daemon.list_all(&format!("{path}?startTime={middle}"), 100).await;
    assert_eq!(since.len(), 6, "from that time on, itself included");
    for bad in ["status=BROKEN", "startTime=yesterday", "limit=x", "cursor=zzz"] {
        daemon.get(&format!("{path}?{bad}")).send().await.refused(400);
    }
}

#[tokio::test]
async fn a_log_is_found_by_its_invocation() {
    let daemon = Daemon::start().await;
    let function = daemon.deploy_python("f", SOURCE).await;
    let record = daemon.call("f", &json!("bad")).await;
    let id = record["requestId"].as_str().expect("an id");
    wait_for(&daemon, "/logs", 1).await;
    let log = daemon.get(&format!("/functions/{}/logs/{id}", function.id)).send().await;
    assert_eq!(log.status, 200, "{}", log.text());
    for words in ["to stdout bad", "to stderr bad"] {
        assert!(log.text().contains(words), "{}", log.text());
    }
    daemon.deploy_python("g", SOURCE).await;
    daemon.get(&format!("/functions/g/logs/{id}")).send().await.refused(404);
    daemon.get("/functions/f/logs/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11").send().await.refused(404);
}

/// What the record cuts is whole in the log.
#[tokio::test]
async fn long_output_is_cut_with_a_marker_and_kept_whole() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    print('first')\n    for i in range(60000):\n        \
                  print('%08d' % i + 'x' * 32)\n    print('last')\n    return 1\n";
    let function = daemon.deploy_python("f", source).await;
    let record = daemon.call("f", &json!({})).await;
    let stdout = record["stdout"].as_str().expect("text");
    assert!(stdout.len() <= (1 << 20) + 200, "{} bytes", stdout.len());
    assert!(stdout.contains("first"), "the beginning is kept");
    assert!(!stdout.ends_with('x'), "a marker says that it was cut: {:?}", &stdout[stdout.len().saturating_sub(120)..]);
    assert_eq!(record["result"], 1);
    let id = record["requestId"].as_str().expect("an id");
    wait_for(&daemon, "/logs", 1).await;
    let whole = daemon.get(&format!("/functions/{}/logs/{id}", function.id)).send().await.text();
    assert!(whole.contains("00059999") && whole.contains("last"), "{} bytes", whole.len());
}

/// Records of sync calls are written behind: soon, not at once.
async fn wait_for(daemon: &Daemon, path: &str, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let (items, _) = page(&daemon.get(path).send().await.expect(200));
        if items.len() >= count {
            return items;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{path} does not show {count} records");
}
