//! The pages that show figures: between two marks in them stands what the last run found, and nobody copies by hand.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use super::rows::Row;
use super::run::Run;
use super::tables::{self, shown};

/// What the front page tells, and from which rows.
const FRONT: [(&str, &[&str]); 7] = [
    (
        "warm call, Python, one connection, p50 and p99",
        &["warm python, 1 connection: p50", "warm python, 1 connection: p99"],
    ),
    (
        "warm calls a second, 64 connections, Python and native",
        &["warm python, 64 connections: completed", "warm native, 64 connections: completed"],
    ),
    (
        "first call of a Python function, sandbox ready or made for it, p50",
        &["cold python, pre-warmed: p50", "cold python, made for the call: p50"],
    ),
    ("first call of a native program, p50", &["cold native: p50"]),
    ("async call, accepted to done, p50", &["async, one at a time, accepted to done: p50"]),
    ("async calls accepted a second, each durable", &["async accepts, durable, 64 connections: completed"]),
    ("idle daemon, resident", &["idle, no sandbox: daemon RSS"]),
];

pub fn write(root: &Path, run: &Run) -> anyhow::Result<()> {
    let heading = tables::heading(run);
    fill(&root.join("benches/README.md"), "goals", &format!("{heading}\n\n{}", tables::goals(run)))?;
    fill(&root.join("benches/README.md"), "cases", &format!("{}\n{}", tables::cases(run), tables::absent(run)))?;
    fill(&root.join("README.md"), "front", &format!("{}\n{heading}", front(run)))
}

fn front(run: &Run) -> String {
    let mut text = "| what | measured |\n|---|---|\n".to_owned();
    for (what, rows) in FRONT {
        let told: Vec<String> = rows.iter().filter_map(|row| run.of(row)).map(figure).collect();
        if !told.is_empty() {
            text += &format!("| {what} | {} |\n", told.join(" · "));
        }
    }
    text
}

fn figure(row: &Row) -> String {
    format!("{} {}", shown(row.median), row.unit)
}

/// Replaces what stands between `<!-- bench: mark -->` and the next `<!-- end -->`.
fn fill(page: &Path, mark: &str, text: &str) -> anyhow::Result<()> {
    let old = fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let (begin, end) = (format!("<!-- bench: {mark} -->\n"), "<!-- end -->");
    let Some((before, rest)) = old.split_once(&begin) else { bail!("{} has no mark `{mark}`", page.display()) };
    let Some((_, after)) = rest.split_once(end) else { bail!("{}: mark `{mark}` has no end", page.display()) };
    let new = format!("{before}{begin}{}\n{end}{after}", text.trim_end());
    fs::write(page, new).with_context(|| format!("write {}", page.display()))
}
