//! One run of the benches as a whole: what the JSON in `target/bench/bench.json` holds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::machine::{Begin, Build, Busy, Machine};
use super::rows::{Absent, Row};
use super::{goals, micro, rows};

#[derive(Serialize, Deserialize)]
pub struct Run {
    /// Seconds since 1970, at the end.
    pub at_s: u64,
    pub machine: Machine,
    pub build: Build,
    pub busy: Busy,
    pub rounds: Option<u32>,
    pub goals: Vec<goals::Judged>,
    pub rows: Vec<Row>,
    pub absent: Vec<Absent>,
}

impl Run {
    pub fn gather(root: &Path, rounds: Option<u32>) -> anyhow::Result<Self> {
        let begin = Begin::kept(root).context("read when the run began: was `begin` called?")?;
        let now = Begin::now();
        let (mut rows, absent) = rows::read(&root.join("target/bench/rows")).context("read the rows")?;
        rows.extend(micro::read(&root.join("target/bench/criterion")).context("read what criterion wrote")?);
        let goals = goals::read(root)?.iter().map(|goal| goal.judge(&rows, &absent)).collect();
        let (machine, build) = (Machine::here(), Build::here(root));
        Ok(Self { at_s: now.at_s(), machine, build, busy: begin.until(&now), rounds, goals, rows, absent })
    }

    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let path = file(root);
        let bytes = fs::read(&path).with_context(|| format!("read {}: `make bench` writes it", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub fn write(&self, root: &Path, partial: bool) -> anyhow::Result<PathBuf> {
        let path = if partial { file(root).with_file_name("partial.json") } else { file(root) };
        fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// As `2026-11-22`.
    pub fn day(&self) -> String {
        let text = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.at_s));
        text.to_string().chars().take(10).collect()
    }

    pub fn of(&self, row: &str) -> Option<&Row> {
        self.rows.iter().find(|known| known.row == row)
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("target/bench/bench.json")
}
