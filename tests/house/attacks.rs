//! `docs/attacks.md` against the suite: every attack that is listed is run, every one that is run is listed.

use std::collections::BTreeMap;

use super::root;
use crate::isolation::attacks::registry;

/// What was promised; the suite only grows.
const ATTACKS_MIN: usize = 120;

/// Attacks by id, each with the test whose section it stands in, and the rows that leave something unsaid.
fn listed(page: &str) -> (BTreeMap<&str, &str>, Vec<&str>) {
    let (mut listed, mut incomplete, mut test) = (BTreeMap::new(), Vec::new(), "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("`isolation::") {
            let end = rest.find('`').unwrap_or_default();
            test = &line[1..end + "`isolation::".len()];
        } else if let Some(id) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            if line.matches(" | ").count() != 3 || line.contains("|  |") {
                incomplete.push(line);
            }
            if listed.insert(id, test).is_some() {
                incomplete.push(line);
            }
        }
    }
    (listed, incomplete)
}

#[test]
fn every_attack_is_listed_and_every_listed_one_is_run() {
    let page = std::fs::read_to_string(root().join("docs/attacks.md")).expect("docs/attacks.md");
    let (listed, incomplete) = listed(&page);
    assert!(incomplete.is_empty(), "rows that stand twice or leave something unsaid:\n{}", incomplete.join("\n"));
    let run: Vec<(&str, String)> = registry();
    let by_id: BTreeMap<&str, &str> = run.iter().map(|(id, test)| (*id, test.as_str())).collect();
    assert_eq!(by_id.len(), run.len(), "ids are distinct");
    let unlisted: Vec<_> = by_id.iter().filter(|(id, test)| listed.get(*id) != Some(*test)).collect();
    let unrun: Vec<_> = listed.iter().filter(|(id, test)| by_id.get(*id) != Some(*test)).collect();
    assert!(
        unlisted.is_empty() && unrun.is_empty(),
        "run and not listed so: {unlisted:?}\nlisted and not run so: {unrun:?}"
    );
    assert!(by_id.len() >= ATTACKS_MIN, "{} attacks", by_id.len());
    assert!(page.contains(&format!("{} attacks", by_id.len())), "the page says another number than {}", by_id.len());
}

#[test]
fn the_tests_that_the_attacks_page_names_exist() {
    for (_, test) in registry() {
        let (module, name) = test.rsplit_once("::").expect("a path");
        let path = root().join("tests").join(format!("{}.rs", module.replace("::", "/")));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(name), "{} has no {name}", path.display());
    }
}

#[test]
fn the_check_sees_rows_that_are_wanting() {
    let page = "`isolation::a::b`. Said.\n| `one` | tries | expected | mechanism |\n| `one` | tries | expected | mechanism |\n| `two` | tries |  | mechanism |\n";
    let (listed, incomplete) = listed(page);
    assert_eq!(listed, BTreeMap::from([("one", "isolation::a::b"), ("two", "isolation::a::b")]));
    assert_eq!(incomplete.len(), 2, "{incomplete:?}");
}
