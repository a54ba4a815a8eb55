//! Waste: processes, memory, files, output, processor time, ends of every kind. The platform bounds it, names the end rightly, and neither
//! the node nor a neighbour feels it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::siege::Siege;
use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::footprint::bytes_below;
use crate::support::platform::{merged, zipped};

const MEMORY_MB: u64 = 128;
/// `limits.pids` of the daemons here.
const PIDS: u64 = 64;
const OPEN_FILES: u64 = 1024;
const FILES: u64 = 65_536;
/// Bounded by memory or time, not by a count.
const ANY: u64 = u64::MAX;
/// From a call to its record: three seconds of the function's, its grace, and much patience with a busy machine.
const RECORD_LIMIT: Duration = Duration::from_secs(40);
/// The longest that another owner's call may take meanwhile. Generous: a millisecond is usual, on a machine with nothing else to do.
const NEIGHBOUR_LIMIT: Duration = Duration::from_secs(5);
/// What may be left on the daemon's disk of all of it together: logs are kept, and bounded.
const DISK_BYTES_MAX: u64 = 256 << 20;
const DAEMON_KIB_MAX: u64 = 400 << 10;

/// An attack, how it may end (`SUCCESS` or the record's `errorType`), and how far it may come where it says so.
pub struct Waste(&'static str, &'static [&'static str], u64);

const SWEPT: &[&str] = &["SUCCESS", "OutOfMemory", "Crashed", "Timeout"];
const HELD: &[&str] = &["SUCCESS", "OutOfMemory", "Timeout"];
const LATE: &[&str] = &["Timeout"];
const FAULT: &[&str] = &["FunctionError"];
const CRASH: &[&str] = &["Crashed"];

pub const BOMBS: &[Waste] = &[
    Waste("fork-bomb", SWEPT, PIDS),
    Waste("thread-bomb", HELD, PIDS),
    Waste("zombie-flood", HELD, PIDS),
    Waste("spawn-loop", HELD, PIDS),
    Waste("double-fork-daemon", &["SUCCESS"], 1),
    Waste("process-that-ignores-everything", &["SUCCESS"], 1),
    Waste("stopped-children", &["SUCCESS"], 8),
    Waste("stop-itself", LATE, 0),
    Waste("kill-everything", &["SUCCESS"], 1),
    Waste("kill-init", &["SUCCESS", "Crashed"], 1),
    Waste("stop-init", &["SUCCESS", "Crashed"], 1),
    Waste("flood-init-with-signals", &["SUCCESS", "Timeout"], ANY),
    Waste("burn-all-processors", LATE, 0),
    Waste("regular-expression", LATE, 0),
    Waste("sleep-for-ever", LATE, 0),
    Waste("ignore-the-end", LATE, 0),
    Waste("exit", CRASH, 0),
    Waste("abort", CRASH, 0),
    Waste("segmentation-fault", CRASH, 0),
    // What an interpreter makes of endless recursion differs from version to version.
    Waste("stack-overflow", &["Crashed", "FunctionError", "OutOfMemory"], 0),
    Waste("result-too-large", &["OutputTooLarge"], 0),
    Waste("result-too-deep", &["FunctionError", "Crashed"], 0),
    Waste("result-of-no-json", FAULT, 0),
    Waste("error-too-large", FAULT, 0),
    Waste("error-that-can-not-be-told", FAULT, 0),
    Waste("close-every-descriptor", &["Crashed", "PlatformError"], 0),
    Waste("write-to-every-descriptor", &["Crashed", "PlatformError"], 0),
];

pub const FLOODS: &[Waste] = &[
    Waste("memory-of-its-own", &["OutOfMemory"], 0),
    Waste("memory-shared", &["OutOfMemory"], 0),
    Waste("memory-in-a-memfd", HELD, MEMORY_MB),
    Waste("memory-in-many-processes", HELD, 16),
    Waste("memory-in-tmp", HELD, MEMORY_MB),
    Waste("memory-in-pipes", HELD, OPEN_FILES),
    Waste("memory-in-sockets", HELD, OPEN_FILES),
    Waste("many-mappings", HELD, FILES),
    Waste("sparse-file-of-a-terabyte", HELD, 1),
    Waste("inode-flood", HELD, FILES),
    Waste("names-that-are-not-there", HELD, ANY),
    Waste("deep-directories", HELD, ANY),
    Waste("deep-output-directories", HELD, ANY),
    Waste("descriptor-flood", HELD, OPEN_FILES),
    Waste("socket-flood", HELD, OPEN_FILES),
    Waste("connection-flood", HELD, OPEN_FILES),
    Waste("epoll-flood", HELD, OPEN_FILES),
    Waste("watch-flood", HELD, FILES),
    Waste("timer-flood", HELD, ANY),
    Waste("queued-signal-flood", HELD, ANY),
    Waste("stdout-flood", LATE, 0),
    Waste("stderr-flood", LATE, 0),
    Waste("flood-of-both", LATE, 0),
    Waste("endless-line", LATE, 0),
    Waste("broken-text", HELD, 60),
];

pub fn ids(wave: &[Waste]) -> Vec<&'static str> {
    wave.iter().map(|waste| waste.0).collect()
}

#[tokio::test]
async fn what_a_process_does_is_its_own() {
    assault(BOMBS).await;
}

#[tokio::test]
async fn what_a_function_hoards_is_its_own() {
    assault(FLOODS).await;
}

async fn assault(wave: &[Waste]) {
    let settings = Daemon::with("SANDBOX__GRACE_MS", 300).set("LIMITS__PIDS", PIDS);
    let mut siege = Siege::of(settings).await;
    let archive = zip(&[
        ("main.py", b"import bombs, floods\nfrom waste import handler\n"),
        ("waste.py", include_bytes!("probes/waste.py")),
        ("bombs.py", include_bytes!("probes/bombs.py")),
        ("floods.py", include_bytes!("probes/floods.py")),
    ]);
    let settings = json!({ "memoryMb": MEMORY_MB, "timeoutMs": 3000 });
    siege.mallory.deploy(merged(zipped("attack", "python", &archive), settings)).await;
    for waste in wave {
        let since = Instant::now();
        let attack = siege.mallory.run("attack", &json!({ "attack": waste.0 }));
        let (answer, worst) = siege.beside(attack.send()).await;
        let took = since.elapsed();
        let outcome = if answer.status == 200 { bounded(&answer.json(), waste) } else { Err(answer.text()) };
        let in_time = if took < RECORD_LIMIT { Ok(()) } else { Err(format!("its record came after {took:?}")) };
        let beside = if worst < NEIGHBOUR_LIMIT { Ok(()) } else { Err(format!("a neighbour waited {worst:?}")) };
        siege.judge(waste.0, outcome.and(in_time).and(beside)).await;
        if answer.json()["status"] == "SUCCESS" {
            // The next one begins in a sandbox of its own: what this one filled is full.
            siege.mallory.run("attack", &json!({ "attack": "exit" })).send().await.expect(200);
        }
    }
    let remains = remains(&siege).await;
    siege.judge("all of them together", remains).await;
    siege.lift();
}

/// Whether a record is of an attack that began, and came no further than it may.
fn bounded(record: &Value, Waste(_, ends, most): &Waste) -> Result<(), String> {
    let short = |text: &Value| text.as_str().unwrap_or_default().chars().take(300).collect::<String>();
    let said = || format!("{} {}: {}", record["status"], record["errorType"], short(&record["errorMessage"]));
    let end = record["errorType"].as_str().unwrap_or("SUCCESS");
    if !ends.contains(&end) {
        return Err(format!("ended otherwise than by {ends:?}: {} {}", said(), record["result"]));
    }
    // What an attack with many processes printed before may be lost with them; the first line is not.
    if !record["stdout"].as_str().is_some_and(|text| text.starts_with("begin\n")) {
        return Err(format!("did not begin: {} {}", said(), short(&record["stdout"])));
    }
    if end == "SUCCESS" && !record["result"]["made"].as_u64().is_some_and(|made| (1..=*most).contains(&made)) {
        return Err(format!("came to {}, not to 1..={most}", record["result"]));
    }
    Ok(())
}

/// What all of it left on the host.
async fn remains(siege: &Siege) -> Result<(), String> {
    let since = Instant::now();
    let footprint = siege.daemon.footprint();
    // Idle and pre-warmed sandboxes stay, two processes each.
    let mut processes = footprint.sandbox_processes();
    while processes.len() > 24 && since.elapsed() < RECORD_LIMIT {
        tokio::time::sleep(Duration::from_millis(200)).await;
        processes = footprint.sandbox_processes();
    }
    let names = processes.iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    let escaped: Vec<String> = names.filter(|name| name.starts_with("sleep\u{0}771.5")).collect();
    if processes.len() > 24 || !escaped.is_empty() {
        return Err(format!("{} processes are left, of them escaped {escaped:?}", processes.len()));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", siege.daemon.pid())).expect("its status");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    let kib = kib.expect("its peak memory");
    let disk = bytes_below(&footprint.home);
    if kib > DAEMON_KIB_MAX || disk > DISK_BYTES_MAX {
        return Err(format!("the daemon grew to {kib} KiB, its disk to {disk} bytes"));
    }
    Ok(())
}
