//! What criterion found, as rows: the median of each of its benchmarks, in microseconds, with the bounds of its confidence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::rows::Row;

const NANOSECONDS_OF_MICROSECOND: f64 = 1000.0;

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    confidence_interval: Interval,
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Of every benchmark below criterion's own directory; none where there is no such directory.
pub fn read(directory: &Path) -> io::Result<Vec<Row>> {
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    found.sort();
    found.iter().map(|new| row(new)).collect()
}

fn row(new: &Path) -> io::Result<Row> {
    let name: Benchmark = serde_json::from_slice(&fs::read(new.join("benchmark.json"))?)?;
    let Estimates { median } = serde_json::from_slice(&fs::read(new.join("estimates.json"))?)?;
    let Interval { lower_bound, upper_bound } = median.confidence_interval;
    let us = |ns: f64| ns / NANOSECONDS_OF_MICROSECOND;
    let row = Row::of(format!("{}: time", name.full_id), "µs".to_owned(), vec![us(median.point_estimate)]);
    Ok(Row { least: us(lower_bound), most: us(upper_bound), ..row })
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name == "new") && path.join("estimates.json").exists() {
                found.push(path);
            } else {
                collect(&path, found)?;
            }
        }
    }
    Ok(())
}
