//! What processes use, from `/proc`: memory, descriptors, processor time; and what the machine has left.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// The kernel's unit of processor time in `/proc`, the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Resident bytes of one process.
pub fn rss(pid: i32) -> u64 {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Rss:") << 10
}

/// The most that was resident at once since the start or since `forget_peak`.
pub fn rss_peak(pid: i32) -> u64 {
    kib(&format!("/proc/{pid}/status"), "VmHWM:") << 10
}

pub fn forget_peak(pid: i32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Bytes of the process and all that came of it, shared pages counted once.
pub fn tree_pss(root: i32) -> u64 {
    tree(root).into_iter().map(|pid| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:") << 10).sum()
}

pub fn descriptors(pid: i32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Processor time of all threads of one process, to ten milliseconds.
pub fn cpu(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    let ticks: u32 = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// The same of the process and its living descendants.
pub fn tree_cpu(root: i32) -> Duration {
    tree(root).into_iter().map(cpu).sum()
}

/// Bytes that the machine could still give out.
pub fn machine_available() -> u64 {
    kib("/proc/meminfo", "MemAvailable:") << 10
}

fn kib(file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// The process and all that came of it.
fn tree(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in brackets may hold anything, brackets and spaces too.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
