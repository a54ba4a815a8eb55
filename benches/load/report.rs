//! What is told at the end: a table for people, JSON for programs, both with the machine they are of.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::engine::Tally;

/// One line. What a case doesn't measure is absent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub case: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mib: Option<f64>,
    pub goal: &'static str,
}

impl Row {
    pub fn of(case: &str, goal: &'static str, tally: &Tally) -> Self {
        let ms = |quantile: f64| {
            let measured = !tally.latency.is_empty();
            measured.then(|| tally.latency.value_at_quantile(quantile) as f64 / 1e6)
        };
        Self {
            case: case.to_owned(),
            p50_ms: ms(0.50),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
            completed: Some(tally.completed),
            per_second: Some(tally.per_second()),
            warm_percent: Some(tally.warm as f64 * 100.0 / (tally.completed as f64).max(1.0)),
            refused: Some(tally.refused),
            failed: Some(tally.failed),
            mib: None,
            goal,
        }
    }

    pub fn memory(case: &str, goal: &'static str, bytes: u64) -> Self {
        Self { case: case.to_owned(), mib: Some(bytes as f64 / f64::from(1 << 20)), goal, ..Self::default() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
    commit: String,
}

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
    /// Cases that could not be measured here, and why.
    skipped: Vec<String>,
}

impl Report {
    pub fn new(rows: Vec<Row>, skipped: Vec<String>) -> Self {
        Self { machine: Machine::here(), rows, skipped }
    }

    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "\n{} × {}, {} MiB, Linux {}, commit {}\n\n",
            machine.processors, machine.processor, machine.memory_mib, machine.kernel, machine.commit
        );
        text += "| case | p50 ms | p95 ms | p99 ms | max ms | completed | per s | warm % | refused | failed | MiB | goal |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let cells = [
                row.case.clone(),
                number(row.p50_ms, 3),
                number(row.p95_ms, 3),
                number(row.p99_ms, 3),
                number(row.max_ms, 1),
                count(row.completed),
                number(row.per_second, 0),
                number(row.warm_percent, 2),
                count(row.refused),
                count(row.failed),
                number(row.mib, 1),
                row.goal.to_owned(),
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
        for skipped in &self.skipped {
            text += &format!("\nnot measured: {skipped}");
        }
        text
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

impl Machine {
    fn here() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
        };
        let memory_kib: u64 =
            field("/proc/meminfo", "MemTotal:").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let commit =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]).output();
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default(),
        }
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map(|value| format!("{value:.digits$}")).unwrap_or_default()
}

fn count(value: Option<u64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
