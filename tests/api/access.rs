//! Every route against no key, a wrong one, every scope, another owner, and access keys: who may, who gets 403, to whom it looks as
//! if nothing were there.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;

use crate::support::client::{Answer, Client};
use crate::support::daemon::Daemon;
use crate::support::platform::page;

const SCOPES: [&str; 4] = ["admin", "deploy", "invoke", "read"];

/// What a caller with every scope but admin's sees of things that another owner has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stranger {
    /// 404, as if they weren't there.
    Absent,
    /// An empty list.
    Empty,
    /// The route is about the caller's own things, or about nobody's.
    Own,
    /// 403: for admins.
    Forbidden,
}

use Stranger::{Absent, Empty, Forbidden, Own};

struct Rule {
    method: Method,
    /// As the router writes it; `{id}` of a function becomes `f`, others an id of that kind.
    route: &'static str,
    /// Scopes of which any one is enough, beside admin, which may do everything.
    scopes: &'static [&'static str],
    stranger: Stranger,
}

/// What an access key is for; there is nothing else that one may do.
const FOR_ACCESS_KEYS: [(&str, &str); 5] = [
    ("POST", "/run"),
    ("GET", "/status/{id}"),
    ("GET", "/invocations/{id}"),
    ("GET", "/invocations/{id}/events"),
    ("GET", "/invocations/{id}/files/{*name}"),
];

fn rules() -> Vec<Rule> {
    let rule = |method, route, scopes, stranger| Rule { method, route, scopes, stranger };
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let (admin, deploy, invoke): (&[_], &[_], &[_]) = (&[], &["deploy"], &["invoke"]);
    // Whoever deploys may look; whoever invokes may follow what it invoked.
    let (read, follow): (&[_], &[_]) = (&["read", "deploy"], &["read", "deploy", "invoke"]);
    // What ends something comes last.
    vec![
        rule(post.clone(), "/run", invoke, Absent),
        rule(post.clone(), "/upload", deploy, Own),
        rule(get.clone(), "/functions", read, Empty),
        rule(post.clone(), "/functions", deploy, Own),
        rule(get.clone(), "/functions/{id}", read, Absent),
        rule(Method::PUT, "/functions/{id}", deploy, Absent),
        rule(Method::PATCH, "/functions/{id}", deploy, Absent),
        rule(get.clone(), "/functions/{id}/versions", read, Absent),
        rule(get.clone(), "/functions/{id}/logs", follow, Absent),
        rule(get.clone(), "/functions/{id}/logs/{request}", follow, Absent),
        rule(get.clone(), "/logs", follow, Empty),
        rule(get.clone(), "/status/{id}", follow, Absent),
        rule(get.clone(), "/invocations/{id}", follow, Absent),
        rule(get.clone(), "/invocations/{id}/events", follow, Absent),
        rule(get.clone(), "/invocations/{id}/files/{*name}", follow, Absent),
        rule(get.clone(), "/dead-letters", read, Empty),
        rule(get.clone(), "/dead-letters/{id}", read, Absent),
        rule(get.clone(), "/audit", admin, Forbidden),
        rule(get.clone(), "/keys", deploy, Empty),
        rule(post.clone(), "/keys", deploy, Own),
        rule(post.clone(), "/worker/heartbeat", admin, Forbidden),
        rule(get.clone(), "/workers", read, Own),
        rule(post.clone(), "/workers/{id}/cordon", admin, Forbidden),
        rule(post.clone(), "/workers/{id}/uncordon", admin, Forbidden),
        rule(post.clone(), "/workers/{id}/drain", admin, Forbidden),
        rule(get, "/system/status", admin, Forbidden),
        rule(delete.clone(), "/keys/{id}", deploy, Absent),
        rule(delete.clone(), "/invocations/{id}", invoke, Absent),
        rule(post, "/dead-letters/{id}/replay", invoke, Absent),
        rule(delete, "/functions/{id}", deploy, Absent),
    ]
}

/// Ann's things, one of each kind, that routes lead to.
struct Things {
    function: String,
    call: String,
    letter: String,
    /// An access key for `function`: its id and its secret.
    key: (String, String),
}

const SOURCE: &str = "def handler(event, context):
    assert event != 'fail'
    open('/output/a.txt', 'w').write('kept')
";

impl Things {
    async fn of(ann: &Client) -> Self {
        let function = ann.deploy_python("f", SOURCE).await.id;
        let record = ann.call("f", &json!(1)).await;
        let letter = ann.submit("f", &json!("fail")).await;
        assert_eq!(ann.wait_final(&letter).await["status"], "DEAD");
        let key = ann.create_access_key("f").await;
        Self { function, call: record["requestId"].as_str().expect("an id").to_owned(), letter, key }
    }

    fn path(&self, route: &str) -> String {
        let id = match route.split('/').nth(1) {
            Some("functions") => &self.function,
            Some("dead-letters") => &self.letter,
            Some("keys") => &self.key.0,
            _ => &self.call,
        };
        route.replace("{id}", id).replace("{request}", &self.call).replace("{*name}", "a.txt")
    }

    async fn ask(&self, caller: &Client, rule: &Rule) -> Answer {
        let body =
            if rule.route == "/run" { json!({ "functionId": self.function, "inputData": 1 }) } else { json!({}) };
        caller.request(rule.method.clone(), &self.path(rule.route)).json(&body).send().await
    }
}

async fn daemon_with_things() -> (Daemon, Client, Things) {
    let daemon = Daemon::with("QUEUE__ATTEMPTS_MAX", 1).start().await;
    let ann = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    let things = Things::of(&ann).await;
    (daemon, ann, things)
}

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let (daemon, _, things) = daemon_with_things().await;
    let mut callers = Vec::new();
    for scope in SCOPES {
        callers.push((scope, daemon.caller("ann", &[scope]).await));
    }
    for rule in rules() {
        for (scope, caller) in &callers {
            let answer = things.ask(caller, &rule).await;
            let what = format!("{} {} with {scope}: {} {}", rule.method, rule.route, answer.status, answer.text());
            if *scope == "admin" || rule.scopes.contains(scope) {
                assert!(![401, 403].contains(&answer.status) && answer.status < 500, "{what}");
            } else {
                assert_eq!(answer.status, 403, "{what}");
                answer.refused(403);
            }
        }
    }
}

#[tokio::test]
async fn no_route_shows_or_changes_what_another_owner_has() {
    let (daemon, ann, things) = daemon_with_things().await;
    let bob = daemon.caller("bob", &["deploy", "invoke", "read"]).await;
    for rule in rules() {
        let answer = things.ask(&bob, &rule).await;
        let what = format!("{} {}: {} {}", rule.method, rule.route, answer.status, answer.text());
        match rule.stranger {
            Absent => assert_eq!(answer.status, 404, "{what}"),
            Forbidden => assert_eq!(answer.status, 403, "{what}"),
            Own => assert!(![403, 404].contains(&answer.status) && answer.status < 500, "{what}"),
            Empty => assert!(page(&answer.expect(200)).0.is_empty(), "{what}"),
        }
        // What was absent for him is there for her.
        if rule.method == Method::GET && matches!(rule.stranger, Absent | Empty) {
            let answer = things.ask(&ann, &rule).await;
            assert_eq!(answer.status, 200, "{} for its owner: {}", rule.route, answer.text());
            assert!(rule.stranger != Empty || !page(&answer.json()).0.is_empty(), "{}", rule.route);
        }
    }
    assert_eq!(daemon.get(&things.path("/functions/{id}")).send().await.expect(200)["version"], 1);
}

#[tokio::test]
async fn nothing_is_told_to_whoever_has_no_key_or_a_wrong_one() {
    // The refusals are what is tried here, not that they are bounded.
    let daemon = Daemon::with("AUTH__FAILURES_MAX", 0).set("QUEUE__ATTEMPTS_MAX", 1).start().await;
    let ann = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    let things = Things::of(&ann).await;
    let mut almost = ann.key().to_owned();
    almost.replace_range(almost.len() - 1.., if almost.ends_with('A') { "B" } else { "A" });
    for caller in [daemon.without_key(), daemon.as_key("wrong"), daemon.as_key(&almost)] {
        for rule in rules() {
            let answer = things.ask(&caller, &rule).await;
            let (_, code) = answer.refused(401);
            assert_eq!(code, "Unauthorized", "{} {}", rule.method, rule.route);
            assert!(!answer.text().contains(&things.function), "{} {}", rule.method, rule.route);
        }
    }
    ann.get("/functions/f").send().await.expect(200);
}

/// For its own function an access key may call and follow; for another one, of whoever, there is nothing at all.
#[tokio::test]
async fn an_access_key_opens_its_function_s_calls_and_no_other_route() {
    let (daemon, ann, things) = daemon_with_things().await;
    ann.deploy_python("other", SOURCE).await;
    let bob = daemon.caller("bob", &["deploy", "invoke", "read"]).await;
    bob.deploy_python("f", SOURCE).await;
    let own = daemon.as_key(&things.key.1);
    let strangers =
        [daemon.as_key(&ann.create_access_key("other").await.1), daemon.as_key(&bob.create_access_key("f").await.1)];
    for rule in rules() {
        let what = format!("{} {}", rule.method, rule.route);
        let may = FOR_ACCESS_KEYS.contains(&(rule.method.as_str(), rule.route));
        let answer = things.ask(&own, &rule).await;
        assert_eq!(answer.status, if may { 200 } else { 403 }, "{what}: {}", answer.text());
        for stranger in &strangers {
            let answer = things.ask(stranger, &rule).await;
            assert_eq!(answer.status, if may { 404 } else { 403 }, "{what} for another's: {}", answer.text());
        }
    }
    let tried: Vec<_> = rules().iter().map(|rule| (rule.method.to_string(), rule.route)).collect();
    for (method, route) in FOR_ACCESS_KEYS {
        assert!(tried.contains(&(method.to_owned(), route)), "{method} {route} is no route");
    }
    ann.get("/functions/f").send().await.expect(200);
}

/// A route that is added without a rule, or a method of one, would be tried by nobody.
#[tokio::test]
async fn every_route_and_method_has_a_rule() {
    let source = include_str!("../../src/controller/api.rs");
    let guarded = source.split("fn guarded()").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the routes");
    let routes: BTreeSet<&str> = guarded.split('"').filter(|text| text.starts_with('/')).collect();
    let rules = rules();
    assert_eq!(routes, rules.iter().map(|rule| rule.route).collect(), "routes, and those with a rule");

    let daemon = Daemon::start().await;
    for route in routes {
        let path = route.replace("{*name}", "x").replace(['{', '}'], "");
        let answer = daemon.request(Method::OPTIONS, &path).send().await;
        answer.refused(405);
        let allowed: BTreeSet<&str> =
            answer.header("allow").expect("an Allow header").split(',').map(str::trim).collect();
        let ruled = rules.iter().filter(|rule| rule.route == route).map(|rule| rule.method.as_str());
        assert_eq!(
            allowed.into_iter().filter(|method| *method != "HEAD").collect::<BTreeSet<_>>(),
            ruled.collect(),
            "{route}"
        );
    }
}
