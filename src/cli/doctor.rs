//! `faasd doctor`: what this machine offers, what it lacks, and the way to mend each.
//!
//! They come in pieces, one per subject. Those of [`checks`] read and change nothing; the `trial` makes a sandbox the way the
//! daemon does, and takes it away again: whatever the single checks may have missed shows there.

mod backends;
mod cgroups;
mod interpreters;
mod kernel;
mod trial;

use clap::Args;
use serde::Serialize;

use super::table::pretty;
use super::{ClientFlags, Environment, Failure};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Good,
    /// It works with less: weaker isolation, fewer runtimes, or nobody can tell.
    Weak,
    /// Something needed is not there.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where nothing needs doing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Check {
    pub fn good(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Good, detail: detail.into(), mend: String::new() }
    }

    pub fn weak(name: &str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Weak, detail: detail.into(), mend: mend.into() }
    }

    pub fn missing(name: &str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { state: State::Missing, ..Self::weak(name, detail, mend) }
    }
}

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub client: ClientFlags,
    /// Exit with 1 where anything is weak, too
    #[arg(long)]
    pub strict: bool,
}

/// What the machine offers, whether or not a daemon runs on it.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![kernel::identity()];
    checks.extend(cgroups::checks());
    checks.extend(kernel::namespaces());
    checks.extend([kernel::clocks(), kernel::proc(), kernel::seccomp(), kernel::landlock()]);
    checks.extend(interpreters::checks());
    checks
}

/// Prints every check.
///
/// # Errors
/// [`Failure::Told`] if something needed is missing or, where asked to be strict, weak.
pub async fn run(arguments: Arguments, environment: Environment) -> Result<(), Failure> {
    let mut checks = checks();
    checks.push(trial::sandbox(environment).await);
    checks.extend(backends::storage(arguments.client.data_dir.as_deref()));
    checks.push(backends::daemon(&arguments.client).await?);
    if arguments.client.json {
        println!("{}", pretty(&serde_json::json!({ "checks": checks })));
    } else {
        print!("{}", render(&checks));
    }
    let fails = |check: &Check| match check.state {
        State::Good => false,
        State::Weak => arguments.strict,
        State::Missing => true,
    };
    if checks.iter().any(fails) { Err(Failure::Told) } else { Ok(()) }
}

/// A line for each, and one more where there is something to mend.
fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, state, detail, mend } in checks {
        let state = match state {
            State::Good => "ok     ",
            State::Weak => "weak   ",
            State::Missing => "MISSING",
        };
        text.push_str(&format!("{state}  {name:<width$}  {detail}\n"));
        if !mend.is_empty() {
            text.push_str(&format!("{:7}  {:width$}  → {mend}\n", "", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_good_says_how_to_mend_it() {
        for check in checks() {
            assert_eq!(check.mend.is_empty(), check.state == State::Good, "{check:?}");
            assert!(!check.detail.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn a_mend_stands_under_its_check() {
        let text = render(&[Check::good("a", "fine"), Check::missing("bb", "none", "make one")]);
        assert_eq!(text, "ok       a   fine\nMISSING  bb  none\n             → make one\n");
    }
}
