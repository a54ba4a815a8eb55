//! One owner against another, with keys that are real and ids that are right: what is hers stays hers, and hidden.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::siege::{Siege, attacks};
use crate::support::client::{Answer, Client};
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, page};

attacks! {
    "read-another-s-function" => read_function,
    "run-another-s-function" => run_function,
    "change-another-s-function" => change_function,
    "delete-another-s-function" => delete_function,
    "read-another-s-logs" => read_logs,
    "read-another-s-record" => read_record,
    "follow-another-s-events" => follow_events,
    "fetch-another-s-file" => fetch_file,
    "cancel-another-s-call" => cancel_call,
    "replay-another-s-dead-letter" => replay_letter,
    "take-another-s-name" => take_name,
    "publish-as-another" => publish_as,
    "idempotency-key-of-another" => idempotency_key,
    "cursor-of-another" => cursor_of_another,
    "cursor-forged" => cursor_forged,
    "limit-extremes" => limits,
}

pub const SOURCE: &str = "import time
def handler(event, context):
    if event == 'fail': raise ValueError
    if event == 'slow': time.sleep(20)
    open('/output/a.txt', 'w').write('hers')
    return 'hers'
";
pub const NOBODY: &str = "6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11";

#[tokio::test]
async fn owners_keep_what_is_theirs() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300).set("QUEUE__ATTEMPTS_MAX", 1)).await;
    siege.ann.deploy_python("private", SOURCE).await;
    siege.run(ATTACKS).await;
    let after = siege.ann.get("/functions/private").send().await.expect(200);
    let same = if after["version"] == 1 { Ok(()) } else { Err(format!("it was changed: {after}")) };
    siege.judge("all of them together", same).await;
    siege.lift();
}

pub async fn id_of(ann: &Client) -> String {
    let shown = ann.get("/functions/private").send().await.expect(200);
    let id = [&shown["functionId"], &shown["id"]].into_iter().find_map(Value::as_str);
    id.unwrap_or_else(|| panic!("no id in {shown}")).to_owned()
}

pub async fn call_of(ann: &Client) -> String {
    let record = ann.call("private", &json!(1)).await;
    record["requestId"].as_str().expect("an id").to_owned()
}

/// Hidden is what answers a stranger as if it weren't there, in the same words as where nothing is, and answers its owner.
async fn hidden(siege: &Siege, method: Method, real: &str, unreal: &str, body: &Value) {
    let ask = async |caller: &Client, path: &str| caller.request(method.clone(), path).json(body).send().await;
    let (theirs, nothing) = (ask(&siege.mallory, real).await, ask(&siege.mallory, unreal).await);
    let (theirs, nothing) = (theirs.refused(404), nothing.refused(404));
    assert_eq!(theirs, nothing, "they tell apart what is another's and what is not there");
    let answer = ask(&siege.ann, real).await;
    assert!(answer.status < 400, "proves nothing: her own is refused too: {}", answer.text());
}

async fn read_function(siege: &Siege) {
    let id = id_of(&siege.ann).await;
    siege.mallory.get("/functions/private").send().await.refused(404);
    let nothing = format!("/functions/{NOBODY}");
    hidden(siege, Method::GET, &format!("/functions/{id}"), &nothing, &Value::Null).await;
    let versions = (format!("/functions/{id}/versions"), format!("/functions/{NOBODY}/versions"));
    hidden(siege, Method::GET, &versions.0, &versions.1, &Value::Null).await;
}

async fn run_function(siege: &Siege) {
    let id = id_of(&siege.ann).await;
    let run = |id: &str| json!({ "functionId": id, "inputData": 1 });
    siege.mallory.run("private", &json!(1)).send().await.refused(404);
    let theirs = siege.mallory.post("/run", &run(&id)).send().await.refused(404);
    assert_eq!(theirs, siege.mallory.post("/run", &run(NOBODY)).send().await.refused(404));
    siege.mallory.post("/run", &run(&id)).header("x-async", "true").send().await.refused(404);
    siege.ann.post("/run", &run(&id)).send().await.expect(200);
}

async fn change_function(siege: &Siege) {
    let id = id_of(&siege.ann).await;
    for method in [Method::PUT, Method::PATCH] {
        for name in [&id, "private"] {
            let request = siege.mallory.request(method.clone(), &format!("/functions/{name}"));
            request.json(&inline("private", "python", "def handler(e, c): return 'mine'\n")).send().await.refused(404);
        }
    }
    assert_eq!(siege.ann.result("private", &json!(1)).await, "hers");
}

async fn delete_function(siege: &Siege) {
    let id = id_of(&siege.ann).await;
    siege.mallory.delete(&format!("/functions/{id}")).send().await.refused(404);
    siege.mallory.delete("/functions/private").send().await.refused(404);
    assert_eq!(siege.ann.result("private", &json!(1)).await, "hers");
}

async fn read_logs(siege: &Siege) {
    let (id, call) = (id_of(&siege.ann).await, call_of(&siege.ann).await);
    hidden(siege, Method::GET, &format!("/functions/{id}/logs"), &format!("/functions/{NOBODY}/logs"), &Value::Null)
        .await;
    siege.mallory.get(&format!("/functions/{id}/logs/{call}")).send().await.refused(404);
    let all = siege.mallory.list_all("/logs", 100).await;
    assert!(!json!(all).to_string().contains(&call), "{all:?}");
}

async fn read_record(siege: &Siege) {
    let call = call_of(&siege.ann).await;
    for route in ["status", "invocations"] {
        hidden(siege, Method::GET, &format!("/{route}/{call}"), &format!("/{route}/{NOBODY}"), &Value::Null).await;
    }
}

async fn follow_events(siege: &Siege) {
    let call = call_of(&siege.ann).await;
    let (real, unreal) = (format!("/invocations/{call}/events"), format!("/invocations/{NOBODY}/events"));
    hidden(siege, Method::GET, &real, &unreal, &Value::Null).await;
}

async fn fetch_file(siege: &Siege) {
    let call = call_of(&siege.ann).await;
    let (real, unreal) = (format!("/invocations/{call}/files/a.txt"), format!("/invocations/{NOBODY}/files/a.txt"));
    hidden(siege, Method::GET, &real, &unreal, &Value::Null).await;
}

async fn cancel_call(siege: &Siege) {
    let call = siege.ann.submit("private", &json!("slow")).await;
    siege.ann.wait_running(&call).await;
    hidden(siege, Method::DELETE, &format!("/invocations/{call}"), &format!("/invocations/{NOBODY}"), &Value::Null)
        .await;
    assert_eq!(siege.ann.wait_final(&call).await["status"], "CANCELLED", "by her, for the route works");
}

async fn replay_letter(siege: &Siege) {
    let letter = siege.ann.submit("private", &json!("fail")).await;
    assert_eq!(siege.ann.wait_final(&letter).await["status"], "DEAD");
    // It is listed a moment after the record says so.
    for _ in 0..100 {
        if siege.ann.get(&format!("/dead-letters/{letter}")).send().await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (real, unreal) = (format!("/dead-letters/{letter}"), format!("/dead-letters/{NOBODY}"));
    hidden(siege, Method::GET, &real, &unreal, &Value::Null).await;
    hidden(siege, Method::POST, &format!("{real}/replay"), &format!("{unreal}/replay"), &json!({})).await;
}

/// A name is an owner's own: taking hers catches none of her calls.
async fn take_name(siege: &Siege) {
    siege.mallory.deploy_python("private", "def handler(event, context):\n    return 'mine'\n").await;
    assert_eq!(siege.ann.result("private", &json!(1)).await, "hers");
    assert_eq!(siege.mallory.result("private", &json!(1)).await, "mine");
    siege.mallory.delete("/functions/private").send().await;
    assert_eq!(siege.ann.result("private", &json!(1)).await, "hers");
}

async fn publish_as(siege: &Siege) {
    let mut definition = inline("planted", "python", SOURCE);
    definition["owner"] = json!("ann");
    siege.mallory.post("/functions", &definition).send().await;
    siege.ann.get("/functions/planted").send().await.refused(404);
    siege.mallory.delete("/functions/planted").send().await;
}

/// Her answer is not given to him who sends her key, and his doesn't take her place.
async fn idempotency_key(siege: &Siege) {
    let source = "import os\ndef handler(event, context):\n    return context.request_id\n";
    siege.ann.deploy_python("once", source).await;
    siege.mallory.deploy_python("once", source).await;
    let ask = async |caller: &Client, key: &str| {
        caller.run("once", &json!(1)).header("idempotency-key", key).send().await.expect(200)["result"].clone()
    };
    let hers = ask(&siege.ann, "one").await;
    assert_ne!(ask(&siege.mallory, "one").await, hers);
    assert_eq!(ask(&siege.ann, "one").await, hers, "the control: her own key is honoured");
    let his = ask(&siege.mallory, "two").await;
    assert_ne!(ask(&siege.ann, "two").await, his);
}

async fn nothing_of_hers(siege: &Siege, answer: &Answer) {
    let (calls, _) = page(&siege.ann.get("/logs?limit=100").send().await.expect(200));
    let calls = calls.iter().filter_map(|call| call["requestId"].as_str().map(ToOwned::to_owned));
    let hers: Vec<String> = calls.chain([id_of(&siege.ann).await]).collect();
    let text = answer.text();
    assert!(hers.len() > 1 && !hers.iter().any(|id| text.contains(id)), "something of hers: {text}");
}

async fn cursor_of_another(siege: &Siege) {
    for _ in 0..3 {
        call_of(&siege.ann).await;
    }
    let (_, cursor) = page(&siege.ann.get("/logs?limit=1").send().await.expect(200));
    let cursor = cursor.expect("there are more");
    let (hers, _) = page(&siege.ann.get(&format!("/logs?limit=1&cursor={cursor}")).send().await.expect(200));
    assert_eq!(hers.len(), 1, "the control: it leads her on");
    let answer = siege.mallory.get(&format!("/logs?limit=100&cursor={cursor}")).send().await;
    nothing_of_hers(siege, &answer).await;
}

async fn cursor_forged(siege: &Siege) {
    for forged in
        ["0", "-1", "AAAA", "%00", "..%2f..", "99999999999999999999999999", "%27%20OR%201=1--", &"A".repeat(6000)]
    {
        for route in ["/functions", "/logs", "/dead-letters"] {
            let answer = siege.mallory.get(&format!("{route}?cursor={forged}")).send().await;
            assert!([200, 400].contains(&answer.status), "{route} {forged:.20}: {} {}", answer.status, answer.text());
            nothing_of_hers(siege, &answer).await;
        }
    }
}

async fn limits(siege: &Siege) {
    for limit in ["0", "-1", "1e9", "18446744073709551616", "999999999", "abc", "", "1&limit=999999"] {
        for route in ["/functions", "/logs"] {
            let answer = siege.mallory.get(&format!("{route}?limit={limit}")).send().await;
            if answer.status != 400 {
                assert!(page(&answer.expect(200)).0.len() <= 1000, "{route} {limit}");
            }
        }
    }
    siege.mallory.get("/functions?limit=abc").send().await.refused(400);
}
