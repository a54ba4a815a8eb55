//! Keys: who may do what, and who sees whose things.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, inline, page};

#[tokio::test]
async fn the_first_start_makes_an_admin_key_that_only_root_can_read() {
    let daemon = Daemon::start().await;
    let file = daemon.data_dir().join("admin.key");
    let mode = fs::metadata(&file).expect("the key file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(daemon.admin_key().len() >= 32, "too short to be unguessable");
    let said = daemon.log();
    assert!(said.contains("admin.key"), "says where the key is: {said}");
    assert!(!said.contains(&daemon.admin_key()), "the key itself is not in the log");
}

#[tokio::test]
async fn only_the_three_open_routes_are_open() {
    let daemon = Daemon::with("AUTH__FAILURES_MAX", 0).start().await;
    daemon.deploy_python("f", ECHO).await;
    let nobody = daemon.without_key();
    for open in ["/", "/health", "/ready", "/api/health", "/api/ready"] {
        assert_eq!(nobody.get(open).send().await.status, 200, "{open}");
    }
    assert_eq!(nobody.get("/metrics").send().await.status, 200, "open on loopback");
    let wrong = daemon.as_key("wrong");
    let almost = daemon.as_key(&daemon.key()[..daemon.key().len() - 1]);
    for (method, path) in [
        (Method::GET, "/functions"),
        (Method::POST, "/functions"),
        (Method::GET, "/functions/f"),
        (Method::PUT, "/functions/f"),
        (Method::PATCH, "/functions/f"),
        (Method::DELETE, "/functions/f"),
        (Method::POST, "/upload"),
        (Method::POST, "/run"),
        (Method::GET, "/status/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11"),
        (Method::GET, "/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11"),
        (Method::GET, "/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11/events"),
        (Method::DELETE, "/invocations/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11"),
        (Method::GET, "/logs"),
        (Method::GET, "/functions/f/logs"),
        (Method::GET, "/workers"),
        (Method::POST, "/worker/heartbeat"),
        (Method::GET, "/system/status"),
        (Method::GET, "/dead-letters"),
        (Method::GET, "/keys"),
        (Method::POST, "/keys"),
    ] {
        for caller in [&nobody, &wrong, &almost] {
            for prefix in ["", "/api"] {
                let answer = caller.request(method.clone(), &format!("{prefix}{path}")).json(&json!({})).send().await;
                assert_eq!(answer.status, 401, "{method} {prefix}{path}: {}", answer.text());
                answer.refused(401);
            }
        }
    }
    daemon.get("/functions/f").send().await.expect(200);
}

#[tokio::test]
async fn a_scope_allows_what_it_names_and_nothing_more() {
    let daemon = Daemon::start().await;
    let owner = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    owner.deploy_python("f", ECHO).await;
    let may = |scopes: &'static [&'static str]| {
        let daemon = &daemon;
        async move {
            let caller = daemon.caller("ann", scopes).await;
            let read = caller.get("/functions/f").send().await.status;
            let run = caller.run("f", &json!(1)).send().await.status;
            let patch =
                caller.request(Method::PATCH, "/functions/f").json(&json!({ "description": "x" })).send().await.status;
            let keys = caller.get("/keys").send().await.status;
            [read, run, patch, keys]
        }
    };
    assert_eq!(may(&["read"]).await, [200, 403, 403, 403]);
    assert_eq!(may(&["invoke"]).await[1..], [200, 403, 403]);
    // Whoever deploys sees its access keys.
    assert_eq!(may(&["deploy"]).await, [200, 403, 200, 200]);
    assert_eq!(may(&["admin"]).await, [200, 200, 200, 200]);
    let reader = daemon.caller("ann", &["read"]).await;
    let (sentence, _) = reader.run("f", &json!(1)).send().await.refused(403);
    assert!(sentence.contains("invoke"), "names the scope that is missing: {sentence}");
}

#[tokio::test]
async fn a_key_is_shown_once_listed_without_its_secret_and_ends_when_revoked() {
    let daemon = Daemon::start().await;
    let (id, secret) = daemon.create_key("ann", &["read"]).await;
    let listing = daemon.get("/keys").send().await;
    assert!(listing.text().contains(&id) && !listing.text().contains(&secret), "{}", listing.text());
    assert!(!listing.text().to_lowercase().contains("sha256"), "{}", listing.text());

    let caller = daemon.as_key(&secret);
    caller.get("/functions").send().await.expect(200);
    daemon.delete(&format!("/keys/{id}")).send().await.expect(200);
    caller.get("/functions").send().await.refused(401);
    daemon.delete(&format!("/keys/{id}")).send().await.refused(404);
    assert!(!daemon.log().contains(&secret));

    for wrong in [json!({}), json!({ "owner": "ann", "scopes": ["god"] }), json!({ "owner": "", "scopes": ["read"] })] {
        daemon.post("/keys", &wrong).send().await.refused(400);
    }
}

/// What another owner has looks in every way as if it weren't there.
#[tokio::test]
async fn owners_are_hidden_from_each_other() {
    let daemon = Daemon::start().await;
    let ann = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    let bob = daemon.caller("bob", &["deploy", "invoke", "read"]).await;
    let hers = ann.deploy_python("f", "def handler(event, context):\n    print('hers')\n    return 'hers'\n").await;
    let record = ann.call("f", &json!(1)).await;
    let call = record["requestId"].as_str().expect("an id").to_owned();
    let job = ann.submit("f", &json!(1)).await;
    ann.wait_final(&job).await;

    for path in [
        "/functions/f".to_owned(),
        format!("/functions/{}", hers.id),
        format!("/functions/{}/logs", hers.id),
        format!("/functions/{}/logs/{call}", hers.id),
        format!("/status/{job}"),
        format!("/invocations/{call}"),
        format!("/invocations/{job}/events"),
    ] {
        bob.get(&path).send().await.refused(404);
        assert_eq!(ann.get(&path).send().await.status, 200, "{path}");
    }
    bob.delete(&format!("/functions/{}", hers.id)).send().await.refused(404);
    bob.delete(&format!("/invocations/{job}")).send().await.refused(404);
    bob.post("/run", &json!({ "functionId": hers.id, "inputData": 1 })).send().await.refused(404);
    bob.run("f", &json!(1)).send().await.refused(404);
    for listing in ["/functions", "/logs"] {
        assert_eq!(page(&bob.get(listing).send().await.expect(200)).0.len(), 0, "{listing}");
    }

    let his = bob.deploy_python("f", "def handler(event, context):\n    return 'his'\n").await;
    assert_ne!(his.id, hers.id);
    assert_eq!((bob.result("f", &json!(1)).await, ann.result("f", &json!(1)).await), (json!("his"), json!("hers")));
    let all = daemon.list_all("/functions", 10).await;
    assert_eq!(all.len(), 2, "the admin sees both");
    bob.post("/keys", &json!({ "name": "x", "owner": "ann", "scopes": ["read"] })).send().await.refused(403);
}

#[tokio::test]
async fn an_idempotency_key_and_an_expired_record_are_their_owner_s_alone() {
    let daemon = Daemon::with("RETENTION__RESULTS_S", 2).start().await;
    let ann = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    let bob = daemon.caller("bob", &["deploy", "invoke", "read"]).await;
    let source = "import uuid\ndef handler(event, context):\n    return str(uuid.uuid4())\n";
    for owner in [&ann, &bob] {
        owner.deploy_python("f", source).await;
    }
    let keyed = async |caller: &Client| {
        caller.run("f", &json!(1)).header("idempotency-key", "the-same").send().await.expect(200)
    };
    let (hers, his) = (keyed(&ann).await, keyed(&bob).await);
    assert_ne!(hers["result"], his["result"]);
    assert_eq!(keyed(&ann).await["result"], hers["result"]);
    // Even an admin's call of her function under her key is another request.
    let id = hers["functionId"].as_str().expect("an id");
    let body = json!({ "functionId": id, "inputData": 1 });
    let admins = daemon.post("/run", &body).header("idempotency-key", "the-same").send().await.expect(200);
    assert_ne!(admins["result"], hers["result"]);

    let path = format!("/status/{}", hers["requestId"].as_str().expect("an id"));
    let since = std::time::Instant::now();
    while ann.get(&path).send().await.status != 410 {
        assert!(since.elapsed() < Duration::from_secs(30), "the record does not expire");
        bob.get(&path).send().await.refused(404);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let unknown = bob.get(&path).send().await.refused(404);
    let never = bob.get("/status/6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11").send().await.refused(404);
    assert_eq!(unknown, never);
}

#[tokio::test]
async fn a_bearer_token_that_is_no_valid_one_is_refused() {
    let daemon = Daemon::start().await;
    let bearer =
        |token: &str| daemon.without_key().get("/functions").header("authorization", &format!("Bearer {token}"));
    for token in ["x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.", ""] {
        bearer(token).send().await.refused(401);
    }
}

/// The answer to a guess must not tell how much of it was right: guesses of every kind get the same answer.
#[tokio::test]
async fn wrong_keys_of_all_kinds_get_the_same_answer() {
    let daemon = Daemon::start().await;
    let mut long = daemon.key().to_owned();
    long.push('x');
    let keys = ["short", &long, &daemon.key()[1..], &"y".repeat(250)];
    let mut answers = Vec::new();
    for key in keys {
        answers.push(daemon.as_key(key).get("/functions").send().await.refused(401));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn the_rate_limit_is_per_key_says_what_is_left_and_when_to_return() {
    let daemon =
        Daemon::with("RATE_LIMIT__ENABLED", true).set("RATE_LIMIT__RATE", 2).set("RATE_LIMIT__BURST", 20).start().await;
    let ann = daemon.caller("ann", &["read"]).await;
    let bob = daemon.caller("bob", &["read"]).await;
    let spend = async |caller: &Client| {
        let mut last = None;
        for nth in 0..100 {
            let answer = caller.get("/functions").send().await;
            assert_eq!(answer.header("x-ratelimit-limit"), Some("20"), "{:?}", answer.headers);
            let left: u32 =
                answer.header("x-ratelimit-remaining").and_then(|left| left.parse().ok()).expect("what is left");
            assert!(last.is_none_or(|last| left <= last + 1), "{left} after {last:?}");
            if answer.status == 429 {
                return (nth, answer);
            }
            answer.expect(200);
            last = Some(left);
        }
        panic!("a hundred calls and no 429");
    };
    let (allowed, refused) = spend(&ann).await;
    assert!((20..=24).contains(&allowed), "{allowed} calls were let through");
    refused.refused(429);
    let wait: u64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a Retry-After");
    assert!((1..=5).contains(&wait), "{wait} s");
    bob.get("/functions").send().await.expect(200);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    ann.get("/functions").send().await.expect(200);
    assert_eq!(ann.get("/health").send().await.status, 200, "liveness is not limited");
}

#[tokio::test]
async fn no_limit_is_no_limit() {
    let daemon = Daemon::start().await;
    let reader = daemon.caller("ann", &["read"]).await;
    for _ in 0..500 {
        reader.get("/functions").send().await.expect(200);
    }
    reader.post("/functions", &inline("f", "python", ECHO)).send().await.refused(403);
}
