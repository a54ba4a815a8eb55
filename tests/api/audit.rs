//! The audit log: every change is in it, with who, what and from where; and without it nothing changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, merged};

const USER: [&str; 3] = ["deploy", "invoke", "read"];
const SOURCE: &str = "def handler(event, context):\n    assert event != 'fail'\n    return event\n";

/// All entries, oldest first.
async fn entries(admin: &Client) -> Vec<Value> {
    let mut all = admin.list_all("/audit", 100).await;
    all.reverse();
    all
}

fn of<'a>(entries: &'a [Value], action: &str) -> Vec<&'a Value> {
    entries.iter().filter(|entry| entry["action"] == action).collect()
}

/// Once `count` entries of this action are there; refusals are written behind.
async fn wait_for(admin: &Client, action: &str, count: usize) -> Vec<Value> {
    let since = Instant::now();
    loop {
        let found: Vec<Value> = of(&entries(admin).await, action).into_iter().cloned().collect();
        if found.len() >= count {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{} of {count} {action} entries", found.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_change_is_logged_with_who_what_when_and_from_where() {
    let daemon = Daemon::with("QUEUE__ATTEMPTS_MAX", 1).start().await;
    let (key_id, secret) = daemon.create_key("ann", &USER).await;
    let ann = daemon.as_key(&secret);
    let definition = merged(inline("f", "python", SOURCE), json!({ "env": { "TOKEN": "hush-hush" } }));
    let function = ann.deploy(definition).await;
    let answer = ann.request(Method::PATCH, "/functions/f").json(&json!({ "description": "b" })).send().await;
    let request_id = answer.header("x-request-id").expect("an id").to_owned();
    let (access, access_secret) = ann.create_access_key("f").await;
    ann.delete(&format!("/keys/{access}")).send().await.expect(200);
    let job = ann.submit("f", &json!("fail")).await;
    ann.wait_final(&job).await;
    ann.post(&format!("/dead-letters/{job}/replay"), &json!({})).send().await.expect(202);
    ann.delete("/functions/f").send().await.expect(200);

    let all = entries(&daemon).await;
    for (seq, entry) in all.iter().enumerate() {
        assert_eq!(entry["seq"], seq as u64 + 1, "numbered without a gap");
    }
    let count = |action: &str| of(&all, action).len();
    assert_eq!((count("node.start"), count("function.create"), count("function.delete")), (1, 1, 1));
    // The admin's by the node, Ann's by the admin, the access key by Ann.
    assert_eq!((count("key.create"), count("key.revoke"), count("deadLetter.replay")), (3, 1, 1));
    assert_eq!(of(&all, "key.create")[1]["objectId"], json!(key_id));
    assert_eq!(of(&all, "key.revoke")[0]["objectId"], json!(access));

    let update = of(&all, "function.update");
    assert_eq!(update.len(), 1, "{all:?}");
    let update = update[0];
    assert_eq!((&update["outcome"], &update["owner"]), (&json!("done"), &json!("ann")));
    assert_eq!((&update["keyId"], &update["keyName"]), (&json!(key_id), &json!("ann-key")));
    assert_eq!((&update["objectId"], &update["objectName"]), (&json!(function.id), &json!("f")));
    assert_eq!((&update["version"], &update["address"]), (&json!(2), &json!("127.0.0.1")));
    assert_eq!(update["requestId"], json!(request_id));
    assert!(update["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{update}");

    let file = daemon.data_dir().join("audit.log");
    assert_eq!(fs::metadata(&file).expect("the log").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("the log");
    for hidden in ["hush-hush", secret.as_str(), access_secret.as_str(), SOURCE] {
        assert!(!text.contains(hidden), "{hidden} is in the log");
    }
}

#[tokio::test]
async fn refusals_are_logged_and_bounded() {
    let daemon = Daemon::with("AUDIT__REFUSALS_MAX", 5).set("AUTH__FAILURES_MAX", 0).start().await;
    let reader = daemon.caller("ann", &["read"]).await;
    reader.delete("/functions/f").send().await.refused(403);
    reader.get("/audit").send().await.refused(403);
    reader.run("f", &json!(1)).send().await.refused(403);
    daemon.as_key("wrong").get("/functions").send().await.refused(401);
    daemon.post("/functions", &json!({ "name": "no" })).send().await.refused(400);
    let deletion = wait_for(&daemon, "function.delete", 1).await;
    assert_eq!((&deletion[0]["outcome"], &deletion[0]["code"]), (&json!("refused"), &json!("Forbidden")));
    assert_eq!(deletion[0]["objectId"], "/functions/f");
    assert_eq!(wait_for(&daemon, "access", 2).await[0]["keyName"], "ann-key");
    assert_eq!(wait_for(&daemon, "authenticate", 1).await[0]["code"], "Unauthorized");
    assert_eq!(wait_for(&daemon, "function.create", 1).await[0]["outcome"], "failed");
    for _ in 0..50 {
        daemon.as_key("wrong").get("/functions").send().await.refused(401);
    }
    let refused = entries(&daemon).await.iter().filter(|entry| entry["outcome"] != "done").count();
    assert_eq!(refused, 5, "no more than that in a minute");
}

#[tokio::test]
async fn a_restart_goes_on_in_the_same_log_and_says_what_was_not_written() {
    let mut daemon = Daemon::with("AUDIT__REFUSALS_MAX", 1).set("AUTH__FAILURES_MAX", 0).start().await;
    for _ in 0..3 {
        daemon.as_key("wrong").get("/functions").send().await.refused(401);
    }
    wait_for(&daemon, "authenticate", 1).await;
    let (status, _) = daemon.sigterm(Duration::from_secs(60)).await;
    assert!(status.success());
    daemon.restart().await;
    let all = entries(&daemon).await;
    assert_eq!(of(&all, "node.start").len(), 2);
    assert_eq!(of(&all, "node.drain")[0]["detail"]["signal"], "SIGTERM");
    assert_eq!(of(&all, "refusals")[0]["count"], 2);
    let started = &of(&all, "node.start")[1]["detail"];
    assert_eq!(started["audit.refusals_max"], "1", "with what it was configured with");
    assert!(all.windows(2).all(|pair| pair[0]["seq"].as_u64().map(|seq| seq + 1) == pair[1]["seq"].as_u64()));
}

/// Two folders are in the way of the log's next file.
#[tokio::test]
async fn nothing_is_changed_while_the_log_can_t_be_written() {
    let daemon = Daemon::with("AUDIT__FILE_BYTES_MAX", 4096).set("AUDIT__FILES_MAX", 3).start().await;
    let ann = daemon.caller("ann", &USER).await;
    ann.deploy_python("f", SOURCE).await;
    let ways = [daemon.data_dir().join("audit.log.1"), daemon.data_dir().join("audit.log.2")];
    for way in &ways {
        fs::create_dir_all(way.join("x")).expect("a folder");
    }
    let change = |n: usize| ann.request(Method::PATCH, "/functions/f").json(&json!({ "description": n.to_string() }));
    let mut made = 0;
    let refused = loop {
        let answer = change(made).send().await;
        if answer.status != 200 {
            break answer;
        }
        made += 1;
        assert!(made < 200, "the log was never full");
    };
    assert_eq!(refused.refused(503).1, "AuditUnavailable");
    assert!(refused.header("retry-after").is_some());
    let before = ann.get("/functions/f").send().await.expect(200);
    for _ in 0..3 {
        change(made).send().await.refused(503);
        ann.delete("/functions/f").send().await.refused(503);
        daemon.post("/keys", &json!({ "name": "x", "scopes": ["read"] })).send().await.refused(503);
    }
    assert_eq!(ann.get("/functions/f").send().await.expect(200)["version"], before["version"]);
    // Looking and calling go on.
    assert_eq!(ann.result("f", &json!(1)).await, json!(1));
    for way in &ways {
        fs::remove_dir_all(way).expect("the folder goes");
    }
    let after = change(made).send().await.expect(200);
    assert_eq!(after["version"], before["version"].as_u64().map(|version| version + 1).expect("a version"));
    let logged = of(&entries(&daemon).await, "function.update").len() as u64;
    assert_eq!(Some(logged + 1), after["version"].as_u64(), "every version has its line");
}

/// The change goes on when its client is gone, so its line must as well.
#[tokio::test]
async fn a_change_whose_client_hangs_up_is_logged_all_the_same() {
    let daemon = Daemon::start().await;
    let body = inline("f", "python", SOURCE).to_string();
    let head = format!(
        "POST /functions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        daemon.key(),
        body.len()
    );
    for n in 0..20 {
        let body = body.replace("\"f\"", &format!("\"{}\"", (b'a' + n) as char));
        let mut socket = daemon.socket().await;
        tokio::io::AsyncWriteExt::write_all(&mut socket, format!("{head}{body}").as_bytes()).await.expect("it reads");
        tokio::time::sleep(Duration::from_micros(u64::from(n) * 200)).await;
        drop(socket);
    }
    let since = Instant::now();
    loop {
        let functions = daemon.list_all("/functions", 100).await.len();
        let logged = of(&entries(&daemon).await, "function.create").len();
        if logged == functions && since.elapsed() > Duration::from_millis(500) {
            assert!(functions > 0, "no change was made at all");
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{logged} lines for {functions} functions");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
