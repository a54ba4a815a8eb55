//! `config/*.toml` against the configuration itself.

use std::collections::BTreeSet;

use faasd::config::Config;
use faasd::config::load::{self, RawConfig};

use super::root;

fn file(name: &str) -> String {
    std::fs::read_to_string(root().join("config").join(name)).expect("a readable configuration file")
}

fn built(name: &str) -> Config {
    let mut raw = RawConfig::default();
    raw.file(name, &file(name));
    raw.build().unwrap_or_else(|problems| panic!("{problems}"))
}

/// The keys that a file sets, dotted, each with whether the line before it is a comment.
fn keys(text: &str) -> Vec<(String, bool)> {
    let mut section = String::new();
    let mut before = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            found.push((format!("{section}{key}"), before.starts_with('#')));
        }
        before = line;
    }
    found
}

#[test]
fn faasd_toml_holds_the_defaults() {
    assert_eq!(built("faasd.toml"), Config::default());
}

#[test]
fn faasd_toml_holds_every_key_and_no_other() {
    let written: BTreeSet<String> = keys(&file("faasd.toml")).into_iter().map(|(key, _)| key).collect();
    let known: BTreeSet<String> = load::defaults().into_keys().collect();
    assert_eq!(written, known);
}

#[test]
fn every_key_in_a_file_has_a_comment() {
    for name in ["faasd.toml", "controller.toml", "worker.toml"] {
        let bare: Vec<String> =
            keys(&file(name)).into_iter().filter(|(_, commented)| !commented).map(|(key, _)| key).collect();
        // A file's first key, its role, is explained by the heading.
        let bare: Vec<String> = bare.into_iter().filter(|key| name == "faasd.toml" || key != "role").collect();
        assert!(bare.is_empty(), "{name}: no comment above {bare:?}");
    }
}

#[test]
fn the_examples_are_valid() {
    assert_eq!(built("both.toml").role, faasd::config::Role::Both);
    let controller = built("controller.toml");
    assert_eq!(
        (controller.rate_limit.enabled, controller.rate_limit.rate, controller.rate_limit.burst),
        (true, 50, 3000)
    );
    assert_eq!(built("worker.toml").role, faasd::config::Role::Worker);
}

/// A template of Terraform's filled in: lines between `%{ if … ~}` and `%{ endif ~}` stay where the condition is among `true_ones`.
fn filled(template: &str, values: &[(&str, &str)], true_ones: &[&str]) -> String {
    let mut kept = true;
    let mut text = String::new();
    for line in template.lines() {
        if let Some(condition) = line.strip_prefix("%{ if ").and_then(|rest| rest.strip_suffix(" ~}")) {
            kept = true_ones.contains(&condition);
        } else if line == "%{ endif ~}" {
            kept = true;
        } else if kept {
            let value = |line: String, (name, value): &(&str, &str)| line.replace(&format!("${{{name}}}"), value);
            text += &values.iter().fold(line.to_owned(), value);
            text.push('\n');
        }
    }
    text
}

#[test]
fn what_terraform_writes_is_a_configuration() {
    let path = root().join("terraform/templates/faasd.toml.tftpl");
    let template = std::fs::read_to_string(path).expect("the template");
    for (role, conditions) in [
        ("both", vec!["https", "role != \"worker\""]),
        ("controller", vec!["fleet", "https", "role != \"worker\""]),
        ("worker", vec!["fleet"]),
    ] {
        let values = [
            ("role", role),
            ("port", "8080"),
            ("table_prefix", "faasd"),
            ("bucket", "faasd-artifacts"),
            ("queue_url", "https://sqs.eu-central-1.amazonaws.com/123456789012/faasd-jobs"),
            ("dead_letter_url", "https://sqs.eu-central-1.amazonaws.com/123456789012/faasd-dead-letters"),
            ("metrics_namespace", "faasd"),
            ("log_group", "/faasd/records"),
            ("elastic_ip", if role == "worker" { "" } else { "eipalloc-0123456789abcdef0" }),
            ("redis_url", "rediss://redis.internal:6379"),
            ("drain_ms", "90000"),
            ("logs_s", "2592000"),
        ];
        let text = filled(&template, &values, &conditions);
        assert!(!text.contains("${") && !text.contains("%{"), "{role}: not all is filled in:\n{text}");
        let mut raw = RawConfig::default();
        raw.file("faasd.toml.tftpl", &text);
        let built = raw.build().unwrap_or_else(|problems| panic!("{role}: {problems}\n{text}"));
        assert_eq!(built.fleet.secret_file.is_empty(), role == "both", "{role}");
        assert_eq!(built.tls.certificate.is_empty(), role == "worker", "{role}");
        assert_eq!(built.aws.elastic_ip_allocation.is_empty(), role == "worker", "{role}");
    }
}
