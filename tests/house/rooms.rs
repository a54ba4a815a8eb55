//! Who may know whom, and what each file owes its reader.

use super::{code_of, sources};

/// What the domain and the ports may not name, and the clocks nobody but the clock's adapter reads.
const FORBIDDEN: [&str; 16] = [
    "tokio",
    "axum",
    "hyper",
    "http::",
    "rusqlite",
    "nix::",
    "libc::",
    "prometheus",
    "aws_",
    "fred::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "SystemTime::now",
    "Instant::now",
];

/// Words so forbidden that occur in `code`, as whole words: `tokio` is not found in `tokio_like`'s neighbour `mytokio`.
fn forbidden_in(code: &str) -> Vec<&'static str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let occurs =
        |word: &str| code.match_indices(word).any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_word));
    FORBIDDEN.into_iter().filter(|word| occurs(word)).collect()
}

#[test]
fn domain_and_ports_name_no_technology() {
    let mut offences = Vec::new();
    let mut read = 0;
    for folder in ["src/domain", "src/ports"] {
        for (path, text) in sources(folder) {
            read += 1;
            for word in forbidden_in(&code_of(&text)) {
                offences.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(read > 10, "only {read} files were read: the check looks in the wrong place");
    assert!(offences.is_empty(), "the domain and the ports may not know these:\n{}", offences.join("\n"));
}

#[test]
fn the_check_for_forbidden_names_finds_them() {
    assert_eq!(forbidden_in("use tokio::spawn;"), ["tokio"]);
    assert_eq!(forbidden_in("let a = std::time::SystemTime::now();"), ["SystemTime::now"]);
    assert!(forbidden_in("let mytokio = 1; use std::time::SystemTime;").is_empty());
    assert!(forbidden_in(&code_of("fn f() {} // as tokio does")).is_empty());
}

/// Whom each room may know beside itself. `node`, `cli` and `main` put rooms together.
const ARROWS: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("ports", &["domain"]),
    ("worker", &["config", "domain", "ports"]),
    ("controller", &["config", "domain", "ports"]),
    ("fleet", &["config", "domain", "ports"]),
    ("runtime", &["domain"]),
    ("sandbox", &["config", "domain", "ports", "runtime"]),
    ("adapters", &["config", "domain", "ports"]),
];

#[test]
fn arrows_point_one_way() {
    let mut offences = Vec::new();
    for (room, may_know) in ARROWS {
        let files = sources(&format!("src/{room}"));
        assert!(!files.is_empty(), "{room} is empty: the check looks in the wrong place");
        for (path, text) in files {
            // Tests put rooms together too.
            if path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "fake") {
                continue;
            }
            let code = code_of(&text);
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            for name in code.split("crate::").skip(1) {
                let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let is_room =
                    ARROWS.iter().any(|(other, _)| *other == name) || ["config", "node", "cli"].contains(&&*name);
                if is_room && name != room && !may_know.contains(&&*name) {
                    offences.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "these know whom they may not:\n{}", offences.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "these open without a `//!` line:\n{}", silent.join("\n"));
}

#[test]
fn unsafe_code_lives_in_one_room() {
    let keyword = |code: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let elsewhere: Vec<String> = sources("src")
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().contains("/src/sandbox/sys"))
        .filter(|(_, text)| keyword(&code_of(text)))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(elsewhere.is_empty(), "`unsafe` belongs in src/sandbox/sys:\n{}", elsewhere.join("\n"));
}

#[test]
fn modules_are_files_of_their_own_name() {
    let old: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|(path, _)| path.ends_with("mod.rs"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(old.is_empty(), "foo.rs beside foo/, not foo/mod.rs:\n{}", old.join("\n"));
}

#[test]
fn main_decides_nothing_and_is_short() {
    let main = std::fs::read_to_string(super::root().join("src/main.rs")).expect("src/main.rs");
    assert!(main.lines().count() <= 150, "src/main.rs has {} lines", main.lines().count());
}

/// The package says `autotests = false`, so a file that nobody declares would never run, and nobody would notice.
#[test]
fn every_test_file_is_part_of_the_one_binary() {
    let main = std::fs::read_to_string(super::root().join("tests/main.rs")).expect("tests/main.rs");
    let forgotten: Vec<String> = std::fs::read_dir(super::root().join("tests"))
        .expect("tests")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(ToOwned::to_owned))
        .filter(|name| name != "main" && !main.lines().any(|line| line == format!("mod {name};")))
        .collect();
    assert!(forgotten.is_empty(), "tests/main.rs does not declare {forgotten:?}");
}
