//! The history of runs: one line each in `benches/history.jsonl`, and what changed since the last on such a machine.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::machine::{Build, Machine};
use super::run::Run;
use super::tables::shown;

/// Less than this is noise on any machine.
const CHANGE_PERCENT_LEAST: f64 = 5.0;

#[derive(Serialize, Deserialize)]
struct Record {
    day: String,
    #[serde(flatten)]
    build: Build,
    #[serde(flatten)]
    machine: Machine,
    /// Median of each row.
    rows: BTreeMap<String, f64>,
}

pub fn append(file: &Path, run: &Run) -> anyhow::Result<()> {
    let rows = run.rows.iter().map(|row| (row.row.clone(), rounded(row.median))).collect();
    let record = Record { day: run.day(), build: run.build.clone(), machine: run.machine.clone(), rows };
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{}\n", serde_json::to_string(&record)?).as_bytes())?;
    Ok(())
}

/// What differs from the last run on a machine of this kind by more than noise and more than this run's own spread.
pub fn changes(file: &Path, run: &Run) -> anyhow::Result<String> {
    let text = if file.exists() { fs::read_to_string(file)? } else { String::new() };
    let mut last = None;
    for line in text.lines() {
        let record: Record = serde_json::from_str(line)?;
        if record.machine.kind() == run.machine.kind() {
            last = Some(record);
        }
    }
    let Some(last) = last else { return Ok("\nThe first run on a machine of this kind.\n".to_owned()) };
    let dirty = if last.build.dirty { ", with changes" } else { "" };
    let mut told = format!(
        "\nSince {} of {}{dirty}:\n\n| row | was | is | change |\n|---|---|---|---|\n",
        last.build.commit, last.day
    );
    for row in &run.rows {
        let Some(was) = last.rows.get(&row.row).copied() else { continue };
        let percent = (row.median - was) * 100.0 / was.abs().max(1e-9);
        let outside = was < row.least || was > row.most;
        if percent.abs() >= CHANGE_PERCENT_LEAST && outside {
            let is = format!("{} {}", shown(row.median), row.unit);
            told += &format!("| {} | {} | {is} | {percent:+.0} % |\n", row.row, shown(was));
        }
    }
    Ok(told)
}

/// To four digits that count, so that lines stay short.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
