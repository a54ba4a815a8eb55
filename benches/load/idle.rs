//! What an idle platform weighs: the daemon's own memory, and that of its whole process tree shared pages counted once.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use super::daemon::Daemon;
use super::options::Options;
use super::report::Row;

/// Allocators and start-up work come to rest.
const SETTLE: Duration = Duration::from_secs(2);

pub fn measure(options: &Options) -> io::Result<Vec<Row>> {
    eprintln!("idle memory …");
    let none =
        ["POOL__PREWARMED_PYTHON", "POOL__PREWARMED_NODEJS", "POOL__PREWARMED_NATIVE"].map(|setting| (setting, "0"));
    let daemon = Daemon::start(&options.executable, &none)?;
    std::thread::sleep(SETTLE);
    let own = kib(daemon.pid(), "Rss:") << 10;
    let tree: u64 = descendants(daemon.pid()).into_iter().map(|pid| kib(pid, "Pss:") << 10).sum();
    Ok(vec![
        Row::memory("idle daemon, resident", "≤ 12 MB", own),
        Row::memory("idle platform without sandboxes, proportional", "≤ 35 MB", tree),
    ])
}

fn kib(pid: i32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// The process and all that came of it.
fn descendants(root: i32) -> Vec<i32> {
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
