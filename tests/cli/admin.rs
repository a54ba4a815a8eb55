//! `faasd admin`: what a fleet shares, made in AWS.

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
