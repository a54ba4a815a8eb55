//! Rows: the figures of all runs of one measure, and their median.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One line of a bench; `benches/harness/rows.rs` says what they mean.
#[derive(Deserialize)]
struct Line {
    row: String,
    value: Option<f64>,
    #[serde(default)]
    unit: String,
    absent: Option<String>,
}

/// One measure over all runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `case: figure`.
    pub row: String,
    pub unit: String,
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub runs: usize,
}

impl Row {
    /// Of at least one value.
    pub fn of(row: String, unit: String, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (runs, middle) = (values.len(), values.len() / 2);
        let median = if runs % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Self { row, unit, median, least: values[0], most: values[runs - 1], runs }
    }

    /// Case and figure.
    pub fn parts(&self) -> (&str, &str) {
        self.row.rsplit_once(": ").unwrap_or((&self.row, "value"))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absent {
    pub row: String,
    pub why: String,
}

/// Everything below `directory`, in the order in which it was first told.
pub fn read(directory: &Path) -> io::Result<(Vec<Row>, Vec<Absent>)> {
    let mut files: Vec<_> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut order: Vec<(String, String)> = Vec::new();
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut absent: Vec<Absent> = Vec::new();
    for file in files {
        for line in fs::read_to_string(&file)?.lines() {
            let line: Line = serde_json::from_str(line)?;
            match (line.value, line.absent) {
                (Some(value), _) => {
                    if !values.contains_key(&line.row) {
                        order.push((line.row.clone(), line.unit));
                    }
                    values.entry(line.row).or_default().push(value);
                }
                (None, why) if absent.iter().all(|known| known.row != line.row) => {
                    let why = why.unwrap_or_else(|| "it gave no number".to_owned());
                    absent.push(Absent { row: line.row, why });
                }
                _ => {}
            }
        }
    }
    let rows = order.into_iter().filter_map(|(row, unit)| {
        let values = values.remove(&row)?;
        Some(Row::of(row, unit, values))
    });
    Ok((rows.collect(), absent))
}
