//! `SPECIFICATION.md` and the other pages: every test and every file that they name exists.

use super::root;

/// What stands between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The source file that a test's path leads to, and the test's name.
fn place(test: &str) -> Option<(std::path::PathBuf, &str)> {
    let (module, name) = test.rsplit_once("::")?;
    let library = module.strip_suffix("::tests");
    let path = format!("{}.rs", library.unwrap_or(module).replace("::", "/"));
    let proof = root().join("tests").join(&path);
    // A module of tests in the library lies in a file of its own, where there are many of them.
    let place = if library.is_none() && proof.exists() { proof } else { root().join("src").join(path) };
    Some((place, name))
}

/// Whether the source has such a test, alone or for each world of a suite.
fn declares(source: &str, name: &str) -> bool {
    ["(", "<W: "].iter().any(|after| source.contains(&format!("fn {name}{after}")))
}

/// Of these tests, those that are not there.
fn absent<'a>(tests: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_absent = |test: &&str| {
        !place(test).is_some_and(|(path, name)| {
            // A file's tests may lie beside it: load.rs and load_tests.rs.
            let beside =
                path.with_file_name(format!("{}_tests.rs", path.file_stem().unwrap_or_default().to_string_lossy()));
            // Or in a file of their own below it: pool.rs and pool/tests.rs.
            let below = path.with_extension("").join("tests.rs");
            [path, beside, below]
                .iter()
                .any(|path| std::fs::read_to_string(path).is_ok_and(|source| declares(&source, name)))
        })
    };
    tests.filter(is_absent).collect()
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let text = std::fs::read_to_string(root().join("SPECIFICATION.md")).expect("SPECIFICATION.md");
    let held: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with('|') && line.contains("::"))
        .filter_map(|line| quoted(line).last())
        .collect();
    assert!(!held.is_empty(), "no promise was found: the check reads the page wrongly");
    let broken = absent(held.into_iter());
    assert!(broken.is_empty(), "these tests are promised and don't exist:\n{}", broken.join("\n"));
}

#[test]
fn every_threat_names_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("docs/threat-model.md")).expect("docs/threat-model.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.matches(" | ").count() == 2 && line.contains("::")).collect();
    // The page's own short form.
    let named: Vec<String> = rows
        .iter()
        .flat_map(|line| quoted(line).filter(|test| test.contains("::")))
        .map(|test| {
            test.strip_prefix("attacks::").map_or(test.to_owned(), |rest| format!("isolation::attacks::{rest}"))
        })
        .collect();
    assert!(named.len() > 50, "{} tests were found: the check reads the page wrongly", named.len());
    let broken = absent(named.iter().map(String::as_str));
    assert!(broken.is_empty(), "these tests are named and don't exist:\n{}", broken.join("\n"));
}

#[test]
fn pages_link_to_files_that_exist() {
    let mut broken = Vec::new();
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "SPECIFICATION.md",
        "CHANGELOG.md",
        "benches/README.md",
        "docs/attacks.md",
        "docs/cost.md",
        "docs/aws.md",
        "docs/errors.md",
        "docs/iam.md",
        "docs/limits.md",
        "docs/metrics.md",
        "docs/operations.md",
        "docs/policies.md",
        "docs/redis.md",
        "docs/threat-model.md",
        "docs/trials.md",
        "docs/vm.md",
    ] {
        let text = std::fs::read_to_string(root().join(page)).expect("a page");
        let folder = root().join(page).parent().map(std::path::Path::to_owned).unwrap_or_default();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.starts_with("http") && !target.starts_with('#') && !folder.join(target).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_limit_key_of_the_page_exists() {
    let text = std::fs::read_to_string(root().join("docs/limits.md")).expect("docs/limits.md");
    let known = faasd::config::load::defaults();
    let sections = ["limits.", "sandbox.", "http.", "rate_limit.", "pool.", "queue.", "retention."];
    let named: Vec<&str> =
        text.lines().flat_map(quoted).filter(|key| sections.iter().any(|section| key.starts_with(section))).collect();
    let unknown: Vec<&&str> = named.iter().filter(|key| !known.contains_key(**key)).collect();
    assert!(named.len() > 20 && unknown.is_empty(), "docs/limits.md names keys that don't exist: {unknown:?}");
    let absent: Vec<&String> = known
        .keys()
        .filter(|key| key.starts_with("limits.") && !text.contains(key.rsplit_once('_').map_or(key.as_str(), |k| k.0)))
        .collect();
    assert!(absent.is_empty(), "docs/limits.md leaves out {absent:?}");
}
