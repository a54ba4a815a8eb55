//! A configuration file and an environment, from text to rules.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::config::load::{RawConfig, render};

const SECRET: &str = "sesame-open-4f1c9a";

/// A TOML file up to the first NUL, then `NAME=value` of the environment, each up to the next.
pub fn configuration(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let variables: Vec<(OsString, OsString)> = parts
        .map(|part| {
            let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            let value = part.get(at + 1..).unwrap_or_default();
            (OsString::from_vec(part[..at].to_vec()), OsString::from_vec(value.to_vec()))
        })
        .collect();
    let mut raw = RawConfig::default();
    raw.file("faasd.toml", text);
    raw.env([("FAASD_HTTP__METRICS_TOKEN".into(), SECRET.into())]);
    raw.env(variables);
    match raw.build() {
        Ok(mut config) => {
            let shown = render(&config);
            assert!(!shown.contains(SECRET));
            config.http.metrics_token = String::new();
            let mut again = RawConfig::default();
            again.file("shown", &render(&config));
            assert_eq!(again.build().as_ref(), Ok(&config), "what is shown is what is in force");
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                let line = problem.to_string();
                assert!(!line.contains(SECRET) && !line.chars().any(|c| c == '\n' || c == '\r'), "{line:?}");
            }
        }
    }
}
