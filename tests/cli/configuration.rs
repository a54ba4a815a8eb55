//! `faasd config`: what is in force, and what is wrong.

use super::{faasd, stderr, stdout};

#[test]
fn check_prints_what_is_in_force_with_secrets_hidden() {
    let vars = [("FAASD_HTTP__METRICS_TOKEN", "0123456789abcdefghij"), ("FAASD_RATE_LIMIT__BURST", "10")];
    let output = faasd(&["config", "check", "--listen", "127.0.0.1:9"], &vars);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(text.contains("listen = \"127.0.0.1:9\"") && text.contains("burst = 10"), "{text}");
    assert!(text.contains("metrics_token = \"***\"") && !text.contains("0123456789"), "{text}");
}

#[test]
fn what_check_prints_is_itself_a_valid_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("faasd.toml");
    std::fs::write(&path, stdout(&faasd(&["config", "show"], &[]))).expect("written");
    let output = faasd(&["config", "check", "--config", path.to_str().expect("UTF-8")], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn check_tells_every_problem_in_a_line_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, "[pool]\nsandboxes_max = 0\nnonsense = 1\n").expect("written");
    let output = faasd(&["config", "check", "--config", path.to_str().expect("UTF-8")], &[("FAASD_BOGUS", "1")]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("pool.sandboxes_max: must be at least 1, not 0"), "{text}");
    assert!(text.contains("pool.nonsense: there is no such key"), "{text}");
    assert!(text.contains("(environment FAASD_BOGUS)"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" (")).count(), 3, "{text}");
}

#[test]
fn the_daemon_refuses_a_bad_configuration_with_2() {
    let output = faasd(&["--set", "pool.sandboxes_max=0"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("pool.sandboxes_max"), "{}", stderr(&output));
}

#[test]
fn a_flag_without_an_equals_sign_is_a_usage_error() {
    assert_eq!(faasd(&["config", "check", "--set", "pool"], &[]).status.code(), Some(2));
}
