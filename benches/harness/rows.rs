//! Where figures go: lines of JSON below `target/bench/rows`, one file a bench, each line one figure of one run.
//!
//! `{"row": "warm python, 1 connection: p50", "value": 0.12, "unit": "ms"}`, or `{"row": …, "absent": "why it could not be measured"}`.
//! A row is named `case: figure`. Several lines of one row are several runs; `benches/report` takes their median.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/rows");

pub struct Rows {
    file: PathBuf,
}

impl Rows {
    /// Of the bench of this name.
    pub fn of(bench: &str) -> Self {
        Self { file: Path::new(DIRECTORY).join(format!("{bench}.jsonl")) }
    }

    pub fn add(&self, row: &str, value: f64, unit: &str) -> io::Result<()> {
        eprintln!("  {row}: {} {unit}", shown(value));
        self.line(&serde_json::json!({ "row": row, "value": value, "unit": unit }))
    }

    /// Of a case that can't be measured here.
    pub fn absent(&self, case: &str, why: &str) -> io::Result<()> {
        eprintln!("  {case}: not measured: {why}");
        self.line(&serde_json::json!({ "row": case, "absent": why }))
    }

    fn line(&self, line: &serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(DIRECTORY)?;
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// With three digits that count, as people read it.
pub fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}
