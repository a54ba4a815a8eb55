//! Where figures go: a line for people, and a line of JSON below `target/bench/rows` for programs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/rows");

/// One figure: `case: figure`.
pub fn add(row: &str, value: f64, unit: &str) -> io::Result<()> {
    println!("{row}: {value:.3} {unit}");
    fs::create_dir_all(DIRECTORY)?;
    let mut file = OpenOptions::new().create(true).append(true).open(Path::new(DIRECTORY).join("sandbox.jsonl"))?;
    writeln!(file, "{}", serde_json::json!({ "row": row, "value": value, "unit": unit }))
}

/// Of durations, the share `quantile` of which is not longer.
pub fn quantile(sorted: &[Duration], quantile: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((sorted.len() as f64 * quantile) as usize).min(last)).copied().unwrap_or_default()
}

/// Median and 99th percentile in milliseconds.
pub fn times(case: &str, mut took: Vec<Duration>) -> io::Result<()> {
    took.sort();
    add(&format!("{case}: p50"), quantile(&took, 0.5).as_secs_f64() * 1e3, "ms")?;
    add(&format!("{case}: p99"), quantile(&took, 0.99).as_secs_f64() * 1e3, "ms")
}
