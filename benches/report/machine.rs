//! The machine a run was made on, and how much of it others took meanwhile.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: u64,
    pub kernel: String,
}

/// Which build was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Build {
    pub commit: String,
    /// The tree held changes that are in no commit.
    pub dirty: bool,
}

/// How busy the machine was, by the kernel's counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Busy {
    pub seconds: u64,
    /// Load averages of one minute, when the run began and when it ended.
    pub load_before: f64,
    pub load_after: f64,
    /// Processor time that the host gave to other machines.
    pub steal_percent: f64,
}

/// As it was when the run began.
#[derive(Serialize, Deserialize)]
pub struct Begin {
    at_s: u64,
    load: f64,
    ticks: Ticks,
}

/// Of all processors since the start of the machine.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ticks {
    all: u64,
    steal: u64,
}

impl Machine {
    pub fn here() -> Self {
        let kib = field("/proc/meminfo", "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kib.unwrap_or(0) + (1 << 19)) >> 20,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }

    /// Runs on machines of one kind may be compared.
    pub fn kind(&self) -> (&str, usize, u64) {
        (&self.processor, self.processors, self.memory_gib)
    }
}

impl Build {
    pub fn here(root: &Path) -> Self {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(root).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        // A run changes its own history; that is no change of what was measured.
        let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":!benches/history.jsonl"]);
        Self { commit: git(&["rev-parse", "--short=10", "HEAD"]), dirty: !changed.is_empty() }
    }
}

impl Begin {
    pub fn now() -> Self {
        let at_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = averages.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
        Self { at_s, load, ticks: Ticks::now() }
    }

    /// In place of all that the last run left.
    pub fn keep(&self, root: &Path) -> io::Result<()> {
        let directory = root.join("target/bench");
        for of_last in ["rows", "criterion"] {
            match fs::remove_dir_all(directory.join(of_last)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::create_dir_all(directory.join("rows"))?;
        fs::write(directory.join("begin.json"), serde_json::to_vec(self)?)
    }

    pub fn kept(root: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(root.join("target/bench/begin.json"))?)?)
    }

    pub fn until(&self, end: &Begin) -> Busy {
        let all = end.ticks.all.saturating_sub(self.ticks.all).max(1);
        let steal = end.ticks.steal.saturating_sub(self.ticks.steal);
        Busy {
            seconds: end.at_s.saturating_sub(self.at_s),
            load_before: self.load,
            load_after: end.load,
            steal_percent: steal as f64 * 100.0 / all as f64,
        }
    }

    pub fn at_s(&self) -> u64 {
        self.at_s
    }
}

impl Ticks {
    /// user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user already.
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let counted: Vec<u64> = first.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        Self { all: counted.iter().sum(), steal: counted.get(7).copied().unwrap_or(0) }
    }
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
}
