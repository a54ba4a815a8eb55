//! What the layers make of each other, and what is said about each mistake.

use super::*;
use crate::config::{Isolation, Role};

fn env(vars: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn flag(flag: &str, key: &str, text: &str) -> FlagValue {
    FlagValue { flag: flag.to_owned(), key: key.to_owned(), text: text.to_owned() }
}

fn layered(file: &str, vars: &[(&str, &str)], flags: &[FlagValue]) -> Result<Config, Vec<String>> {
    let mut raw = RawConfig::default();
    raw.file("f.toml", file);
    raw.env(env(vars));
    raw.flags(flags);
    raw.build().map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn no_layers_give_the_defaults() {
    assert_eq!(layered("", &[], &[]), Ok(Config::default()));
    assert_eq!(load(None, env(&[("PATH", "/bin")]), &[]), Ok(Config::default()));
}

#[test]
fn later_layers_win() {
    let file = "isolation = \"auto\"\nlisten = \"127.0.0.1:1\"\n[rate_limit]\nburst = 5\nrate = 7\n";
    let vars =
        [("FAASD_LISTEN", "127.0.0.1:2"), ("FAASD_RATE_LIMIT__BURST", "10"), ("FAASD_RATE_LIMIT__ENABLED", "true")];
    let config = layered(file, &vars, &[flag("--listen", "listen", "127.0.0.1:3")]).unwrap();
    assert_eq!(config.role, Role::Both);
    assert_eq!(config.listen.port(), 3);
    assert_eq!((config.rate_limit.burst, config.rate_limit.rate, config.rate_limit.enabled), (10, 7, true));
    assert_eq!(config.isolation, Isolation::Auto);
}

#[test]
fn client_variables_are_not_keys() {
    let vars = [("FAASD_URL", "http://x"), ("FAASD_API_KEY", "k"), ("FAASD_CONFIG", "f"), ("FAASD_TEST_ROOT", "1")];
    assert_eq!(layered("", &vars, &[]), Ok(Config::default()));
}

#[test]
fn every_problem_is_told_with_key_and_source() {
    let file =
        "role = \"boss\"\nbogus = 1\n\n[pool]\nsandboxes_max = 0\nwaiters_maximum = 3\n[http]\nconnections_max = -4\n";
    let vars = [("FAASD_RATE_LIMIT__BURST", "many"), ("FAASD_NOPE", "1")];
    let problems = layered(file, &vars, &[flag("--listen", "listen", "here")]).unwrap_err();
    for (start, end) in [
        ("role: unknown variant `boss`", "(f.toml line 1)"),
        ("bogus: there is no such key", "(f.toml line 2)"),
        ("pool.sandboxes_max: must be at least 1", "(f.toml line 5)"),
        ("pool.waiters_maximum: there is no such key", "(f.toml line 6)"),
        ("http.connections_max: invalid value: integer `-4`", "(f.toml line 8)"),
        ("rate_limit.burst: must be a whole number, not `many`", "(environment FAASD_RATE_LIMIT__BURST)"),
        ("nope: there is no such key", "(environment FAASD_NOPE)"),
        ("listen: ", "(flag --listen)"),
    ] {
        let found = problems.iter().any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(found, "{start} … {end} is missing in {problems:#?}");
    }
    assert_eq!(problems.len(), 8, "{problems:#?}");
    assert!(problems.iter().all(|line| !line.contains('\n')));
}

#[test]
fn a_key_in_the_wrong_section_gets_a_hint() {
    let problems = layered("sandboxes_max = 3\n", &[], &[]).unwrap_err();
    assert_eq!(problems, ["sandboxes_max: there is no such key; did you mean `pool.sandboxes_max`? (f.toml line 1)"]);
}

#[test]
fn a_section_is_not_a_value() {
    let problems = layered("pool = 3\n", &[], &[]).unwrap_err();
    assert_eq!(problems, ["pool: is a section: write it as [pool] (f.toml line 1)"]);
}

#[test]
fn text_that_is_not_toml_names_its_line() {
    let problems = layered("role = \"both\"\nlisten = = 3\n", &[], &[]).unwrap_err();
    assert!(problems.iter().any(|line| line.ends_with("(f.toml line 2)")), "{problems:?}");
}

#[test]
fn a_missing_file_is_a_problem() {
    let problems = load(Some(Path::new("/nonexistent/faasd.toml")), Vec::new(), &[]).unwrap_err();
    assert!(problems.to_string().contains("can't be read"), "{problems}");
}

#[test]
fn a_rule_broken_by_two_layers_names_the_one_that_won() {
    let problems = layered("[pool]\nsandboxes_max = 0\n", &[("FAASD_POOL__SANDBOXES_MAX", "0")], &[]).unwrap_err();
    assert!(problems[0].ends_with("(environment FAASD_POOL__SANDBOXES_MAX)"), "{problems:?}");
}

#[test]
fn secrets_are_hidden_and_the_rest_reads_back() {
    let mut config = Config::default();
    assert_eq!(layered(&render(&config), &[], &[]), Ok(config.clone()));
    config.http.metrics_token = "0123456789abcdef0123".to_owned();
    let text = render(&config);
    assert!(text.contains("metrics_token = \"***\"") && !text.contains("0123456789"), "{text}");
}

#[test]
fn every_secret_is_a_key() {
    assert!(SECRETS.iter().all(|key| defaults().contains_key(*key)));
}
