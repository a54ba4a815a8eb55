//! The executable as its users run it: flags, exit codes, what is printed where.

#[cfg(feature = "aws")]
mod admin;
mod client;
mod configuration;
mod daemon;
mod service;

use std::process::{Command, Output};

/// Runs the executable with an environment that holds `vars` and nothing else of the project's.
fn faasd(args: &[&str], vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faasd"))
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(vars.iter().copied())
        .output()
        .expect("the executable starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
