//! Keys, scopes, tokens and claims: more than a caller was given, or as somebody else, or found out by asking often.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::siege::{Siege, attacks};
use super::tenants::{NOBODY, SOURCE, call_of, id_of};
use crate::support::client::{Answer, Client};
use crate::support::daemon::Daemon;
use crate::support::platform::{inline, page};

/// Requests of each kind whose times are compared; they alternate, so that a busy machine slows both.
const TIMED: usize = 150;
/// Medians further apart than this, and by more than a half, would tell something over a network.
const TELLING: Duration = Duration::from_millis(2);

attacks! {
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

#[tokio::test]
async fn a_caller_is_who_its_key_says() {
    let mut siege = Siege::of(Daemon::with("SANDBOX__GRACE_MS", 300)).await;
    siege.ann.deploy_python("private", SOURCE).await;
    siege.run(ATTACKS).await;
    siege.lift();
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
