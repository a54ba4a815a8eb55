//! One owner against another, and against the operator: with keys that are real, with ids that are right, with headers that claim.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::siege::{Siege, attacks};
use crate::support::client::{Answer, Client};
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, page};

/// Requests of each kind whose times are compared; they alternate, so that a busy machine slows both.
const TIMED: usize = 150;
/// Medians further apart than this, and by more than a half, would tell something over a network.
const TELLING: Duration = Duration::from_millis(2);

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
    "list-keys" => list_keys,
    "make-a-key" => make_key,
    "revoke-a-key" => revoke_key,
    "use-a-revoked-key" => revoked_key,
    "invoke-key-that-deploys" => scope_of_invoke,
    "read-key-that-invokes" => scope_of_read,
    "forged-heartbeat" => heartbeat,
    "system-status" => system_status,
    "claimed-address" => claimed_address,
    "claimed-owner" => claimed_owner,
    "token-without-signature" => unsigned_token,
    "token-and-key-confused" => confused_token,
    "guess-ids" => guess_ids,
    "ids-by-timing" => ids_by_timing,
    "keys-by-timing" => keys_by_timing,
}

const SOURCE: &str = "import time
def handler(event, context):
    if event == 'fail': raise ValueError
    if event == 'slow': time.sleep(20)
    open('/output/a.txt', 'w').write('hers')
    return 'hers'
";
const NOBODY: &str = "6e9c7d0e-31e1-4f6e-8f2e-0b8a3f2b5a11";

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

async fn id_of(ann: &Client) -> String {
    let shown = ann.get("/functions/private").send().await.expect(200);
    let id = [&shown["functionId"], &shown["id"]].into_iter().find_map(Value::as_str);
    id.unwrap_or_else(|| panic!("no id in {shown}")).to_owned()
}

async fn call_of(ann: &Client) -> String {
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

async fn list_keys(siege: &Siege) {
    let answer = siege.mallory.get("/keys").send().await;
    if answer.status != 403 {
        // His own are no secret to him.
        let (keys, _) = page(&answer.expect(200));
        assert!(keys.iter().all(|key| key["owner"] == "mallory"), "{keys:?}");
    }
    let (all, _) = page(&siege.daemon.get("/keys").send().await.expect(200));
    assert!(all.iter().any(|key| key["owner"] == "ann"), "the control: the admin sees hers: {all:?}");
}

async fn make_key(siege: &Siege) {
    for scopes in [json!(["admin"]), json!(["read"])] {
        let asked = json!({ "name": "more", "owner": "admin", "scopes": scopes });
        siege.mallory.post("/keys", &asked).send().await.refused(403);
        let own = json!({ "name": "more", "owner": "mallory", "scopes": scopes });
        siege.mallory.post("/keys", &own).send().await.refused(403);
        siege.daemon.post("/keys", &own).send().await.expect(201);
    }
}

async fn revoke_key(siege: &Siege) {
    let (id, secret) = siege.daemon.create_key("ann", &["read"]).await;
    let answer = siege.mallory.delete(&format!("/keys/{id}")).send().await;
    assert!([403, 404].contains(&answer.status), "{}", answer.text());
    siege.daemon.as_key(&secret).get("/functions").send().await.expect(200);
}

async fn revoked_key(siege: &Siege) {
    let (id, secret) = siege.daemon.create_key("mallory", &["read", "invoke"]).await;
    let caller = siege.daemon.as_key(&secret);
    // Known, and cached.
    for _ in 0..3 {
        caller.get("/functions").send().await.expect(200);
    }
    siege.daemon.delete(&format!("/keys/{id}")).send().await.expect(200);
    caller.get("/functions").send().await.refused(401);
    caller.run("anything", &json!(1)).send().await.refused(401);
}

async fn scope_of_invoke(siege: &Siege) {
    let caller = siege.daemon.caller("mallory", &["invoke"]).await;
    let definition = inline("more", "python", SOURCE);
    caller.post("/functions", &definition).send().await.refused(403);
    caller.get("/functions").send().await.refused(403);
    caller.delete("/functions/more").send().await.refused(403);
    caller.post("/keys", &json!({ "name": "k", "scopes": ["deploy"] })).send().await.refused(403);
}

async fn scope_of_read(siege: &Siege) {
    let caller = siege.daemon.caller("mallory", &["read"]).await;
    caller.get("/functions").send().await.expect(200);
    caller.run("anything", &json!(1)).send().await.refused(403);
    caller.run("anything", &json!(1)).header("x-async", "true").send().await.refused(403);
    caller.post("/functions", &inline("more", "python", SOURCE)).send().await.refused(403);
}

async fn heartbeat(siege: &Siege) {
    let forged = json!({ "workerId": "evil", "id": "evil", "address": "10.0.0.1:1", "state": "READY" });
    siege.mallory.post("/worker/heartbeat", &forged).send().await.refused(403);
    let workers = siege.daemon.get("/workers").send().await.text();
    assert!(!workers.contains("evil"), "{workers}");
}

async fn system_status(siege: &Siege) {
    siege.mallory.get("/system/status").send().await.refused(403);
    siege.daemon.get("/system/status").send().await.expect(200);
}

/// What a proxy would say is believed of nobody.
async fn claimed_address(siege: &Siege) {
    let headers = [
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-client-ip",
        "true-client-ip",
        "x-original-url",
        "x-rewrite-url",
    ];
    for header in headers {
        let value = if header.ends_with("url") { "/health" } else { "127.0.0.1" };
        siege.mallory.get("/system/status").header(header, value).send().await.refused(403);
        siege.daemon.without_key().get("/functions").header(header, value).send().await.refused(401);
    }
}

async fn claimed_owner(siege: &Siege) {
    for header in
        ["x-owner", "x-user", "x-faasd-owner", "x-tenant", "x-forwarded-user", "x-scopes", "x-http-method-override"]
    {
        let answer = siege.mallory.get("/functions/private").header(header, "ann").send().await;
        answer.refused(404);
        siege.mallory.get("/system/status").header(header, "admin").send().await.refused(403);
    }
}

fn token(header: &Value, claims: &Value, signature: &str) -> String {
    use base64::Engine;
    let encode = |part: &Value| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

async fn bearer(siege: &Siege, token: &str) -> Answer {
    let nobody = siege.daemon.without_key();
    nobody.get("/functions").header("authorization", &format!("Bearer {token}")).send().await
}

async fn unsigned_token(siege: &Siege) {
    let claims =
        json!({ "sub": "admin", "owner": "admin", "scope": "admin", "scopes": ["admin"], "exp": 4_102_444_800_u64 });
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "RS256"] {
        bearer(siege, &token(&json!({ "alg": algorithm, "typ": "JWT" }), &claims, "")).await.refused(401);
    }
    let key_inside = json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AA" }, "jku": "http://169.254.169.254/", "kid": "../../dev/null" });
    bearer(siege, &token(&key_inside, &claims, "AAAA")).await.refused(401);
}

/// A key is no token and a token no key, cut, doubled or dressed up.
async fn confused_token(siege: &Siege) {
    let key = siege.mallory.key().to_owned();
    let claims = json!({ "sub": "admin", "scope": "admin" });
    let dressed = token(&json!({ "alg": "HS256" }), &claims, &key);
    bearer(siege, &dressed).await.refused(401);
    for wrong in
        [key.to_uppercase(), format!("{key}x"), key[1..].to_owned(), format!("{key},{key}"), format!("{key} admin")]
    {
        if wrong != key {
            siege.daemon.as_key(&wrong).get("/functions").send().await.refused(401);
        }
    }
}

/// Ids next to one's own: another's are not found by counting on.
async fn guess_ids(siege: &Siege) {
    let (first, second) = (call_of(&siege.ann).await, call_of(&siege.ann).await);
    let tail = |id: &str| u128::from_str_radix(&id.replace('-', ""), 16).expect("an id is a UUID");
    let apart = tail(&first).abs_diff(tail(&second));
    assert!(apart > 1 << 60, "ids in sequence are {apart} apart");
    let id = id_of(&siege.ann).await;
    let last = id.chars().last().and_then(|c| c.to_digit(16)).expect("a digit");
    for digit in (0..16).filter(|digit| *digit != last) {
        let guess = format!("{}{digit:x}", &id[..id.len() - 1]);
        siege.mallory.get(&format!("/functions/{guess}")).send().await.refused(404);
    }
}

/// The two medians, from requests that alternate.
async fn medians(first: impl AsyncFn(), second: impl AsyncFn()) -> (Duration, Duration) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..TIMED {
        let since = Instant::now();
        first().await;
        times.0.push(since.elapsed());
        let since = Instant::now();
        second().await;
        times.1.push(since.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    (median(times.0), median(times.1))
}

fn telling((first, second): (Duration, Duration)) -> bool {
    first.abs_diff(second) > TELLING && first.max(second) > first.min(second) * 3 / 2
}

async fn ids_by_timing(siege: &Siege) {
    let (real, unreal) = (format!("/functions/{}", id_of(&siege.ann).await), format!("/functions/{NOBODY}"));
    let ask = async |path: &str| drop(siege.mallory.get(path).send().await.refused(404));
    let medians = medians(async || ask(&real).await, async || ask(&unreal).await).await;
    assert!(!telling(medians), "another's and nobody's: {medians:?}");
}

async fn keys_by_timing(siege: &Siege) {
    let key = siege.ann.key().to_owned();
    let (early, late) = (format!("x{}", &key[1..]), format!("{}x", &key[..key.len() - 1]));
    let (early, late) = (siege.daemon.as_key(&early), siege.daemon.as_key(&late));
    let ask = async |caller: &Client| {
        let status = caller.get("/functions").send().await.status;
        assert!([401, 429].contains(&status), "{status}");
    };
    let medians = medians(async || ask(&early).await, async || ask(&late).await).await;
    assert!(!telling(medians), "wrong at once and wrong at last: {medians:?}");
    siege.ann.get("/functions").send().await.expect(200);
}
