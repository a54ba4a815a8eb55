//! Keys, scopes, owners, the rate limit, and the routes around them.

use http::{Method, StatusCode};

use super::client::run_body;
use super::rig::Rig;
use crate::config::Config;
use crate::controller::auth::ensure_admin_key;
use crate::domain::time::Timestamp;
use crate::ports::keys::KeyStore;

#[tokio::test]
async fn nothing_but_the_probes_is_open() {
    let rig = Rig::new().await;
    for path in ["/", "/health", "/ready", "/api/health", "/api/"] {
        assert_eq!(rig.ask(Method::GET, path).send("").await.status, StatusCode::OK, "{path}");
    }
    for path in ["/functions", "/metrics", "/workers", "/system/status", "/logs", "/keys", "/dead-letters"] {
        let refused = rig.ask(Method::GET, path).send("").await;
        refused.refused(401, "Unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    rig.get("fk_wrong", "/functions").await.refused(401, "Unauthorized");
    let bearer = |token: String| rig.ask(Method::GET, "/functions").header("authorization", &token).send("");
    bearer("Bearer eyJhbGciOiJIUzI1NiJ9.e30.x".into()).await.refused(401, "Unauthorized");
    bearer(format!("bearer {}", rig.ann)).await.ok();
    bearer(format!("Basic {}", rig.ann)).await.refused(401, "Unauthorized");
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_have_the_form_of_failures() {
    let rig = Rig::new().await;
    rig.get(&rig.ann, "/nothing").await.refused(404, "RouteNotFound");
    let wrong = rig.ask(Method::DELETE, "/run").key(&rig.ann).send("").await;
    wrong.refused(405, "MethodNotAllowed");
    assert!(wrong.header("allow").contains("POST"));
    let head = rig.ask(Method::HEAD, "/health").send("").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    rig.get(&rig.ann, "/functions/%ff").await.refused(400, "InvalidRequest");
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say() {
    let rig = Rig::new().await;
    rig.echo().await;
    rig.get(&rig.reader, "/functions/echo").await.ok();
    let sentence = rig.post(&rig.reader, "/run", &run_body("1")).await.refused(403, "Forbidden");
    assert!(sentence.contains("invoke"));
    rig.post(&rig.reader, "/functions", "{}").await.refused(403, "Forbidden");
    rig.post(&rig.ann, "/keys", r#"{"name": "x", "scopes": ["read"]}"#).await.refused(403, "Forbidden");
    rig.get(&rig.ann, "/system/status").await.refused(403, "Forbidden");
    assert_eq!(rig.get(&rig.admin, "/system/status").await.ok()["functions"], 1);
    assert_eq!(rig.get(&rig.ann, "/workers").await.ok()["items"][0]["capacity"], 4);
}

#[tokio::test]
async fn what_others_own_does_not_exist_but_for_admins() {
    let rig = Rig::new().await;
    let id = rig.echo().await;
    let request = rig.run("1").await.ok()["requestId"].as_str().unwrap().to_owned();
    for path in [
        format!("/functions/{id}"),
        "/functions/echo".into(),
        format!("/functions/{id}/versions"),
        format!("/functions/{id}/logs"),
    ] {
        rig.get(&rig.bob, &path).await.refused(404, "FunctionNotFound");
        rig.get(&rig.admin, &path).await.ok();
    }
    for path in
        [format!("/status/{request}"), format!("/invocations/{request}"), format!("/functions/{id}/logs/{request}")]
    {
        rig.get(&rig.bob, &path).await.refused(404, "InvocationNotFound");
        rig.get(&rig.admin, &path).await.ok();
    }
    rig.post(&rig.bob, "/run", &run_body("1")).await.refused(404, "FunctionNotFound");
    rig.ask(Method::DELETE, &format!("/functions/{id}")).key(&rig.bob).send("").await.refused(404, "FunctionNotFound");
    assert_eq!(rig.post(&rig.admin, "/run", &run_body("1")).await.ok()["result"], 1);
    assert_eq!(rig.get(&rig.admin, "/functions").await.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(rig.get(&rig.bob, "/functions").await.ok()["items"].as_array().unwrap().len(), 0);

    // Bob's own of the same name makes the name ambiguous for an admin, and for nobody else.
    let body = r#"{"name": "echo", "runtime": "python", "code": {"inline": "x"}}"#;
    assert_eq!(rig.post(&rig.bob, "/functions", body).await.status, StatusCode::CREATED);
    rig.post(&rig.admin, "/run", &run_body("1")).await.refused(409, "AmbiguousName");
    rig.run("1").await.ok();
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked() {
    let rig = Rig::new().await;
    let made = rig.post(&rig.admin, "/keys", r#"{"name": "ci", "owner": "cy", "scopes": ["read"]}"#).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let (secret, id) =
        (made.json()["secret"].as_str().unwrap().to_owned(), made.json()["id"].as_str().unwrap().to_owned());
    assert_eq!(secret.len(), 46);
    rig.get(&secret, "/functions").await.ok();
    let listed = rig.get(&rig.admin, "/keys").await;
    assert!(listed.ok()["items"].as_array().unwrap().len() == 5);
    let text = String::from_utf8_lossy(&listed.body).into_owned();
    assert!(!text.contains(&secret) && !text.contains("secret"), "{text}");
    let revoke = || rig.ask(Method::DELETE, &format!("/keys/{id}")).key(&rig.admin).send("");
    revoke().await.ok();
    rig.get(&secret, "/functions").await.refused(401, "Unauthorized");
    revoke().await.refused(404, "KeyNotFound");
    rig.post(&rig.admin, "/keys", r#"{"name": "x", "scopes": ["root"]}"#).await.refused(400, "InvalidRequest");
    rig.post(&rig.admin, "/keys", r#"{"name": "x", "scopes": []}"#).await.refused(400, "InvalidRequest");
}

#[tokio::test]
async fn the_first_start_makes_an_admin_key_and_the_second_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let (world, dir) = (super::fakes::World::default(), tempfile::tempdir().unwrap());
    let path = ensure_admin_key(&world, dir.path(), Timestamp(1)).await.unwrap().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&path).unwrap();
    let key = world.by_secret(&crate::controller::auth::hash(secret.trim().as_bytes())).await.unwrap().unwrap();
    assert_eq!(key.scopes, [crate::domain::key::Scope::Admin]);
    assert_eq!(ensure_admin_key(&world, dir.path(), Timestamp(2)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_counts_by_key_and_says_where_one_stands() {
    let mut config = Config::default();
    config.rate_limit = crate::config::RateLimit { enabled: true, rate: 1, burst: 2 };
    let rig = Rig::with(config).await;
    let first = rig.get(&rig.ann, "/functions").await;
    assert_eq!((first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")), ("2", "1"));
    assert_eq!(first.header("x-ratelimit-reset"), "1");
    rig.get(&rig.ann, "/functions").await.ok();
    let refused = rig.run("1").await;
    refused.refused(429, "TooManyRequests");
    assert_eq!((refused.header("retry-after"), refused.header("x-ratelimit-remaining")), ("1", "0"));
    rig.get(&rig.bob, "/functions").await.ok();
    rig.ask(Method::GET, "/health").send("").await.ok();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    rig.get(&rig.ann, "/functions").await.ok();
}

#[tokio::test]
async fn metrics_count_by_route_template_and_need_a_key_from_afar() {
    let rig = Rig::new().await;
    rig.get(&rig.ann, "/functions/one").await;
    rig.get(&rig.ann, "/api/functions/two").await;
    rig.get(&rig.ann, "/nowhere").await;
    let text = String::from_utf8(rig.get(&rig.ann, "/metrics").await.body.to_vec()).unwrap();
    assert!(text.contains(r#"http_requests_total{method="GET",route="/functions/{id}",status="404"} 2"#), "{text}");
    assert!(text.contains(r#"route="unknown""#), "{text}");
}

#[test]
fn every_code_has_its_paragraph() {
    let docs = include_str!("../../../docs/errors.md");
    for code in crate::controller::error::Code::ALL {
        let heading = format!("## {} ({})", code.as_str(), code.status().as_u16());
        assert!(docs.contains(&heading), "docs/errors.md has no {heading:?}");
    }
}
