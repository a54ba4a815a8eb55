//! Wrong keys are counted by address, and addresses are believed only from where they may come.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::ECHO;

/// A daemon behind a proxy on its own machine, which tells where callers come from.
fn behind_a_proxy() -> Builder {
    Daemon::with("AUTH__FAILURES_MAX", 3).set("HTTP__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")
}

fn from(address: &str, request: Request) -> Request {
    request.header("x-forwarded-for", address)
}

async fn fail(caller: &Client, address: &str, times: usize) {
    for _ in 0..times {
        from(address, caller.get("/functions")).send().await.refused(401);
    }
}

#[tokio::test]
async fn after_so_many_wrong_keys_an_address_must_wait_and_a_good_key_from_it_need_not() {
    let daemon = behind_a_proxy().start().await;
    let known = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    let unseen = daemon.caller("bob", &["read"]).await;
    known.deploy_python("f", ECHO).await;
    let wrong = daemon.as_key("wrong");
    fail(&wrong, "198.51.100.7", 3).await;

    let refused = from("198.51.100.7", wrong.get("/functions")).send().await;
    assert_eq!(refused.refused(429).1, "TooManyFailures");
    let wait: u64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a Retry-After");
    assert!((1..=60).contains(&wait), "{wait} s");
    // The way past the router refuses as well.
    assert_eq!(from("198.51.100.7", wrong.run("f", &json!(1))).send().await.refused(429).1, "TooManyFailures");
    let token = wrong.without_key().get("/functions").header("authorization", "Bearer a.b.c");
    from("198.51.100.7", token).send().await.refused(429);

    // Neighbours behind the same address did nothing wrong, whether they were here before or not.
    from("198.51.100.7", known.run("f", &json!(1))).send().await.expect(200);
    from("198.51.100.7", unseen.get("/functions")).send().await.expect(200);
    // Nor did anybody elsewhere.
    from("198.51.100.8", wrong.get("/functions")).send().await.refused(401);
    // Without a key at all nothing was guessed.
    from("198.51.100.7", daemon.without_key().get("/functions")).send().await.refused(401);
    let throttled = daemon.metrics().await.sum("faasd_controller_auth_throttled_total", &[]);
    assert!(throttled >= 3.0, "{throttled}");
}

#[tokio::test]
async fn ipv6_addresses_count_by_their_64() {
    let daemon = behind_a_proxy().start().await;
    let wrong = daemon.as_key("wrong");
    for host in ["2001:db8::1", "2001:db8::2:3", "2001:db8::ffff:ffff"] {
        fail(&wrong, host, 1).await;
    }
    from("2001:db8::4", wrong.get("/functions")).send().await.refused(429);
    from("2001:db8:0:1::4", wrong.get("/functions")).send().await.refused(401);
}

#[tokio::test]
async fn what_a_client_writes_before_the_proxy_s_word_is_not_believed() {
    let daemon = behind_a_proxy().start().await;
    let wrong = daemon.as_key("wrong");
    for made_up in ["1.1.1.1", "1.1.1.2", "1.1.1.3"] {
        fail(&wrong, &format!("{made_up}, 203.0.113.9, 10.9.9.9"), 1).await;
    }
    from("1.1.1.4, 203.0.113.9", wrong.get("/functions")).send().await.refused(429);
    from("203.0.113.9, 1.1.1.4", wrong.get("/functions")).send().await.refused(401);
}

#[tokio::test]
async fn nobody_is_believed_where_no_proxy_is_trusted() {
    let daemon = Daemon::with("AUTH__FAILURES_MAX", 3).start().await;
    let wrong = daemon.as_key("wrong");
    for address in ["1.1.1.1", "1.1.1.2", "1.1.1.3"] {
        fail(&wrong, address, 1).await;
    }
    from("1.1.1.4", wrong.get("/functions")).send().await.refused(429);
    daemon.get("/functions").send().await.expect(200);
}

/// Through a proxy on this machine everybody would be loopback, and `/metrics` open.
#[tokio::test]
async fn metrics_are_not_open_to_whoever_comes_through_a_proxy() {
    let daemon = behind_a_proxy().start().await;
    let nobody = daemon.without_key();
    assert_eq!(nobody.get("/metrics").send().await.status, 200);
    from("198.51.100.7", nobody.get("/metrics")).send().await.refused(401);
    assert_eq!(from("198.51.100.7", daemon.get("/metrics")).send().await.status, 200);
    daemon.deploy_python("f", ECHO).await;
    let guest = daemon.as_key(&daemon.create_access_key("f").await.1);
    from("198.51.100.7", guest.get("/metrics")).send().await.refused(403);
}

#[tokio::test]
async fn no_bound_on_failures_is_none() {
    let daemon = Daemon::with("AUTH__FAILURES_MAX", 0).start().await;
    let wrong = daemon.as_key("wrong");
    for _ in 0..60 {
        wrong.get("/functions").send().await.refused(401);
    }
}

/// A flood of guesses is refused at once, and disturbs nobody who has a key.
#[tokio::test]
async fn a_flood_of_guesses_does_not_hold_up_others() {
    let daemon = Daemon::start().await;
    let ann = daemon.caller("ann", &["deploy", "invoke", "read"]).await;
    ann.deploy_python("f", ECHO).await;
    let mut guesses = tokio::task::JoinSet::new();
    for guesser in 0..4 {
        let client = daemon.without_key();
        guesses.spawn(async move {
            let mut refused = 0;
            for n in 0..250 {
                let answer = client.as_key(&format!("guess-{guesser}-{n}")).get("/functions").send().await;
                assert!([401, 429].contains(&answer.status), "{}", answer.text());
                refused += usize::from(answer.status == 429);
            }
            refused
        });
    }
    for n in 0..50 {
        assert_eq!(ann.result("f", &json!(n)).await, json!(n));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused: usize = guesses.join_all().await.into_iter().sum();
    assert!(refused >= 900, "{refused} of 1000 guesses were answered 429");
}
