//! What answers tell browsers: not to guess, keep, frame or run anything, and whose pages may read them.

use http::Method;
use serde_json::json;

use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

const ORIGIN: &str = "https://app.example.org";

#[track_caller]
fn protected(answer: &Answer, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{what}: {name}");
    }
    assert_eq!(answer.header("server"), None, "{what}");
    assert_eq!(answer.header("strict-transport-security"), None, "{what}: not over HTTPS");
    assert!(answer.header("x-request-id").is_some(), "{what}");
    let kind = answer.header("content-type").unwrap_or("application/json");
    assert!(!kind.contains("html") && !kind.contains("xml") && !kind.contains("script"), "{what}: {kind}");
}

#[tokio::test]
async fn every_answer_is_protected() {
    let daemon = Daemon::start().await;
    let page = "<html><script>alert(1)</script></html>";
    let writer = format!(
        "def handler(event, context):\n    open('/output/page.html', 'w').write({page:?})\n    print({page:?})\n    return {page:?}\n"
    );
    daemon.deploy_python("page", &writer).await;
    let record = daemon.run("page", &json!({})).send().await;
    protected(&record, "POST /run");
    let id = record.expect(200)["requestId"].as_str().expect("an id").to_owned();
    for path in
        ["/", "/health", "/ready", "/metrics", "/functions", "/functions/page", "/logs", "/workers", "/nowhere", "/run"]
    {
        protected(&daemon.get(path).send().await, path);
    }
    protected(&daemon.without_key().get("/functions").send().await, "401");
    protected(&daemon.run("nobody", &json!({})).send().await, "404 of POST /run");
    let file = daemon.get(&format!("/invocations/{id}/files/page.html")).send().await;
    protected(&file, "an output file");
    assert_eq!(file.text(), page);
    assert_eq!(file.header("content-disposition"), Some("attachment"));
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    let printed = daemon.get(&format!("/functions/page/logs/{id}")).header("accept", "text/plain").send().await;
    protected(&printed, "a log text");
    assert!(printed.text().contains(page) && printed.header("content-disposition") == Some("attachment"));
    // The wish for a page is not granted.
    let html = daemon.get(&format!("/invocations/{id}")).header("accept", "text/html").send().await;
    assert_eq!(html.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn pages_of_other_origins_get_nothing_unless_configured() {
    let daemon = Daemon::start().await;
    for request in [daemon.get("/functions"), daemon.get("/health"), daemon.request(Method::OPTIONS, "/run")] {
        let request = request.header("origin", ORIGIN).header("access-control-request-method", "POST");
        let answer = request.send().await;
        let told: Vec<_> = answer.headers.keys().filter(|name| name.as_str().starts_with("access-control")).collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

#[tokio::test]
async fn a_configured_origin_is_let_in_and_no_other() {
    let daemon = Daemon::with("HTTP__CORS_ORIGINS", format!("{ORIGIN},http://localhost:3000")).start().await;
    daemon.deploy_python("echo", ECHO).await;
    // A browser asks without the key.
    let ask = |origin: &'static str| {
        let request = daemon.without_key().request(Method::OPTIONS, "/run").header("origin", origin);
        request.header("access-control-request-method", "POST").header("access-control-request-headers", "x-api-key")
    };
    let preflight = ask(ORIGIN).send().await;
    protected(&preflight, "preflight");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
    let allowed = preflight.header("access-control-allow-headers").unwrap_or_default();
    assert!(allowed.contains("x-api-key") && allowed.contains("authorization"), "{allowed}");
    assert!(preflight.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));

    let call = daemon.run("echo", &json!(1)).header("origin", ORIGIN).send().await;
    assert_eq!(call.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(call.header("vary"), Some("origin"));
    assert_eq!(call.expect(200)["result"], 1);
    let refused = daemon.without_key().get("/functions").header("origin", ORIGIN).send().await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some(ORIGIN)));

    for origin in
        ["https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null", "*"]
    {
        let preflight = ask(origin).send().await;
        assert!(preflight.status >= 400 && preflight.header("access-control-allow-origin").is_none(), "{origin}");
        let call = daemon.get("/functions").header("origin", origin).send().await;
        assert_eq!(call.header("access-control-allow-origin"), None, "{origin}");
    }
}
