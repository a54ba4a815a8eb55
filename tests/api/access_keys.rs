//! Access keys: one function, for whoever its owner hands the key to. And what else keys have: an end, words, a last use.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, inline, page};

const USER: [&str; 3] = ["deploy", "invoke", "read"];

async fn keys_of(caller: &Client) -> Vec<Value> {
    page(&caller.get("/keys").send().await.expect(200)).0
}

#[tokio::test]
async fn an_owner_makes_lists_and_revokes_access_keys() {
    let daemon = Daemon::start().await;
    let ann = daemon.caller("ann", &USER).await;
    let bob = daemon.caller("bob", &USER).await;
    let function = ann.deploy_python("f", ECHO).await;
    let (id, secret) = ann.create_access_key(&function.id).await;
    let guest = daemon.as_key(&secret);
    assert_eq!(guest.result("f", &json!(7)).await, json!(7));
    let by_id = guest.post("/run", &json!({ "functionId": function.id, "inputData": 8 })).send().await.expect(200);
    assert_eq!(by_id["result"], 8);

    let listed = keys_of(&ann).await;
    assert_eq!(listed.len(), 1, "her own key is for admins to see: {listed:?}");
    assert_eq!((&listed[0]["id"], &listed[0]["functionId"]), (&json!(id), &json!(function.id)));
    assert_eq!((&listed[0]["scopes"], &listed[0]["owner"]), (&json!(["invoke"]), &json!("ann")));
    assert!(!listed[0].to_string().contains(&secret) && listed[0].get("secret").is_none(), "{}", listed[0]);
    assert!(keys_of(&bob).await.is_empty());

    bob.delete(&format!("/keys/{id}")).send().await.refused(404);
    bob.post("/keys", &json!({ "name": "x", "functionId": function.id })).send().await.refused(404);
    ann.delete(&format!("/keys/{id}")).send().await.expect(200);
    guest.run("f", &json!(1)).send().await.refused(401);
    assert!(keys_of(&ann).await.is_empty());
}

#[tokio::test]
async fn an_owner_makes_no_other_keys_and_an_access_key_none_at_all() {
    let daemon = Daemon::start().await;
    let ann = daemon.caller("ann", &USER).await;
    ann.deploy_python("f", ECHO).await;
    let make = |caller: &Client, body: Value| caller.post("/keys", &body).send();
    make(&ann, json!({ "name": "x", "scopes": ["read"] })).await.refused(403);
    make(&ann, json!({ "name": "x", "scopes": ["admin"], "functionId": "f" })).await.refused(400);
    make(&ann, json!({ "name": "x", "scopes": ["invoke", "deploy"], "functionId": "f" })).await.refused(400);
    make(&ann, json!({ "name": "x", "owner": "bob", "functionId": "f" })).await.refused(400);
    make(&ann, json!({ "name": "x", "functionId": "none" })).await.refused(404);
    let caller = daemon.caller("ann", &["invoke", "read"]).await;
    make(&caller, json!({ "name": "x", "functionId": "f" })).await.refused(403);
    let guest = daemon.as_key(&ann.create_access_key("f").await.1);
    make(&guest, json!({ "name": "x", "functionId": "f" })).await.refused(403);
    // An admin's access key for her function is hers.
    let made = make(&daemon, json!({ "name": "x", "functionId": "f" })).await.expect(201);
    assert_eq!(made["owner"], "ann");
    // A key that an admin has stays for admins to revoke.
    let (admins, _) = daemon.create_key("ann", &["read"]).await;
    ann.delete(&format!("/keys/{admins}")).send().await.refused(404);
}

#[tokio::test]
async fn an_access_key_outlives_versions_and_restarts_and_ends_with_its_function() {
    let mut daemon = Daemon::start().await;
    let ann = daemon.create_key("ann", &USER).await.1;
    let caller = daemon.as_key(&ann);
    caller.deploy_python("f", "def handler(event, context):\n    return 1\n").await;
    let (_, secret) = caller.create_access_key("f").await;
    let second = inline("f", "python", "def handler(event, context):\n    return 2\n");
    caller.request(http::Method::PUT, "/functions/f").json(&second).send().await.expect(200);
    assert_eq!(daemon.as_key(&secret).result("f", &json!(null)).await, json!(2));
    daemon.restart().await;
    let (caller, guest) = (daemon.as_key(&ann), daemon.as_key(&secret));
    assert_eq!(guest.result("f", &json!(null)).await, json!(2));
    caller.delete("/functions/f").send().await.expect(200);
    guest.run("f", &json!(null)).send().await.refused(401);
    // One of the same name is another function.
    caller.deploy_python("f", ECHO).await;
    guest.run("f", &json!(null)).send().await.refused(401);
    assert!(keys_of(&caller).await.is_empty());
}

#[tokio::test]
async fn an_access_key_follows_its_function_s_asynchronous_calls() {
    let daemon = Daemon::start().await;
    let ann = daemon.caller("ann", &USER).await;
    ann.deploy_python("f", ECHO).await;
    ann.deploy_python("g", ECHO).await;
    let guest = daemon.as_key(&ann.create_access_key("f").await.1);
    let job = guest.submit("f", &json!("sent")).await;
    assert_eq!(guest.wait_final(&job).await["result"], "sent");
    let events = guest.get(&format!("/invocations/{job}/events")).events().await;
    let last = events.rest().await.pop().expect("an event");
    assert_eq!(last.kind, "result");
    let of_g = ann.submit("g", &json!(1)).await;
    ann.wait_final(&of_g).await;
    for path in [format!("/status/{of_g}"), format!("/invocations/{of_g}/events")] {
        guest.get(&path).send().await.refused(404);
    }
    guest.run("g", &json!(1)).header("x-async", "true").send().await.refused(404);
}

#[tokio::test]
async fn a_key_may_have_an_end_a_description_and_shows_its_last_use() {
    let daemon = Daemon::start().await;
    let make = |end: Value| json!({ "name": "k", "owner": "ann", "scopes": ["read"], "description": "for CI", "expiresAt": end });
    for wrong in [json!("2001-01-01T00:00:00Z"), json!("soon"), json!(5)] {
        daemon.post("/keys", &make(wrong)).send().await.refused(400);
    }
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let ends = now + 3000;
    let made = daemon.post("/keys", &make(json!(ends.to_string()))).send().await.expect(201);
    assert_eq!((&made["description"], &made["lastUsedAt"]), (&json!("for CI"), &Value::Null));
    let caller = daemon.as_key(made["secret"].as_str().expect("a secret"));
    caller.get("/functions").send().await.expect(200);
    let since = Instant::now();
    loop {
        let keys = keys_of(&daemon).await;
        let key = keys.iter().find(|key| key["id"] == made["id"]).expect("the key is listed");
        assert!(key["expiresAt"].is_string());
        if key["lastUsedAt"].is_string() {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(10), "its use is not noted: {key}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while (std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64) < ends + 50 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Used a moment ago, so it is in every cache there is.
    caller.get("/functions").send().await.refused(401);
}
