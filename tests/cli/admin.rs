//! `faasd admin`: what a fleet shares, made in AWS, and a key to it.

use faasd::adapters::aws::dynamodb;
use faasd::domain::key::Scope;
use faasd::ports::keys::KeyStore;
use sha2::{Digest, Sha256};

use crate::support::moto::Moto;

use super::{faasd, stderr, stdout};

#[test]
fn the_tables_are_made_once() {
    let prefix = format!("aws.table_prefix=t{}", uuid::Uuid::new_v4().simple());
    let vars = [
        ("AWS_ENDPOINT_URL", Moto::parallel().endpoint.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    for told in ["created", "is there"] {
        let output = faasd(&["admin", "create-tables", "--set", &prefix], &vars);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        assert_eq!(text.lines().filter(|line| line.starts_with(told)).count(), 6, "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}

#[test]
fn a_service_that_does_not_answer_is_told_in_a_sentence() {
    // Nobody listens on the port that a listener has just left.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vars = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ];
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let output = faasd(&["admin", "create-tables"], &vars);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(text.contains("create the table faasd-invocations") && text.lines().count() == 1, "{text}");
}

/// Whoever may write to the table needs no key to make one: the first may be lost with the node that made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_without_one() {
    let moto = Moto::parallel();
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let set = format!("aws.table_prefix={prefix}");
    let vars = [
        ("AWS_ENDPOINT_URL", moto.endpoint.as_str()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("FAASD_BACKEND", "aws"),
        ("FAASD_AWS__BUCKET", "artifacts"),
        ("FAASD_AWS__QUEUE_URL", "http://127.0.0.1:9/000000000000/jobs"),
        ("FAASD_SECRETS__KEY", &"5e".repeat(32)),
    ];
    assert_eq!(faasd(&["admin", "create-tables", "--set", &set], &vars).status.code(), Some(0));
    let made = faasd(&["admin", "create-key", "me", "--set", &set], &vars);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let keys = dynamodb::keys(aws_sdk_dynamodb::Client::new(&moto.sdk().await), &prefix);
    let found =
        keys.by_secret(&Sha256::digest(stdout(&made).trim()).into()).await.unwrap().expect("a key with this secret");
    assert_eq!((&*found.name, &*found.owner.0, found.scopes), ("me", "admin", vec![Scope::Admin]));

    let alone = faasd(&["admin", "create-key", "me"], &[]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(stderr(&alone).contains("admin.key"), "{}", stderr(&alone));
}
