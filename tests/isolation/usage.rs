//! What a call used is this call's, not its sandbox's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Value, json};

use crate::support::archive;
use crate::support::daemon::Daemon;
use crate::support::platform::{Samples, merged, zipped};

const MIB: u64 = 1 << 20;

fn number(record: &Value, name: &str) -> u64 {
    record[name].as_u64().unwrap_or_else(|| panic!("{name} in {record}"))
}

#[tokio::test]
async fn peak_memory_is_of_this_call() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    kept = b'x' * (event << 20)\n    return len(kept)\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 256 })).await;
    let small = number(&daemon.call("f", &json!(1)).await, "peakMemoryBytes");
    let large = number(&daemon.call("f", &json!(50)).await, "peakMemoryBytes");
    let record = daemon.call("f", &json!(1)).await;
    assert_eq!(record["startType"], "WARM");
    let after = number(&record, "peakMemoryBytes");
    assert!(large >= small + 45 * MIB, "50 MiB more show: {small} then {large}");
    assert!(after + 40 * MIB < large, "the next call starts anew: {large} then {after}");
    assert!(large < 256 * MIB);
}

#[tokio::test]
async fn cpu_time_is_what_was_burnt() {
    let daemon = Daemon::start().await;
    let source = "import time\ndef handler(event, context):\n    end = time.process_time() + event\n    \
                  while time.process_time() < end: pass\n    return 1\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 1792 })).await;
    let idle = number(&daemon.call("f", &json!(0)).await, "cpuUs");
    let busy = number(&daemon.call("f", &json!(0.3)).await, "cpuUs");
    let after = number(&daemon.call("f", &json!(0)).await, "cpuUs");
    assert!((280_000..600_000).contains(&busy), "{busy} µs for 300 ms of work");
    assert!(idle < 100_000 && after < 50_000, "{idle} and {after} µs for none");
}

/// Where the ceiling is in proportion to memory too, as on Lambda, work with little of it takes longer, and the record says that it was
/// held back.
#[tokio::test]
async fn little_memory_is_little_processor() {
    let daemon = Daemon::with("SANDBOX__CPU_CEILING_MIN", 0).start().await;
    let source = "import time\ndef handler(event, context):\n    start = time.time()\n    end = time.process_time() + 0.4\n    \
                  while time.process_time() < end: pass\n    return time.time() - start\n";
    daemon.deploy_python_with("small", source, json!({ "memoryMb": 128 })).await;
    let record = daemon.call("small", &json!({})).await;
    let seconds = record["result"].as_f64().expect("seconds");
    assert!(seconds > 0.8, "{record}");
    // What was neither worked nor waited for anything else; half, because a busy machine makes it wait too.
    assert!(number(&record, "throttledUs") as f64 > (seconds - 0.4) * 0.5e6, "{record}");
}

/// The kernel counts a process that runs up to the last tick of its processor (4 ms here); what one call's account lacks of that
/// is in the next one's, so nothing is lost and nothing counts twice.
#[tokio::test]
async fn the_processor_time_of_all_calls_is_that_of_the_sandbox() {
    let daemon = Daemon::with("POOL__PREWARMED_PYTHON", 0)
        .set("POOL__PREWARMED_NODEJS", 0)
        .set("POOL__PREWARMED_NATIVE", 0)
        .start()
        .await;
    let source = "import time\ndef handler(event, context):\n    end = time.process_time() + event / 1e6\n    \
                  while time.process_time() < end: pass\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 1792 })).await;
    daemon.call("f", &json!(0)).await;
    let before = used_us(&daemon).await;
    let mut sum = 0;
    for call in 0..400 {
        // Most are too short for every file to be read, some are not.
        let record = daemon.call("f", &json!([0, 100, 3000, 500][call % 4])).await;
        assert_eq!(record["startType"], "WARM");
        sum += number(&record, "cpuUs");
    }
    let total = used_us(&daemon).await - before;
    assert!(total > 300_000, "400 calls worked {total} µs");
    assert!(sum.abs_diff(total) < 10_000, "the calls say {sum} µs, the kernel {total}");
}

/// Processor time of the daemon's one sandbox, when it is at rest.
async fn used_us(daemon: &Daemon) -> u64 {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let groups = daemon.footprint().cgroups();
    let lives = |group: &&PathBuf| fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|list| !list.is_empty());
    let v1 = |group: &PathBuf| fs::read_to_string(group.join("cpuacct.usage")).ok()?.trim().parse::<u64>().ok();
    let v2 = |group: &PathBuf| {
        let stat = fs::read_to_string(group.join("cpu.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse::<u64>().ok()
    };
    let living: Vec<&PathBuf> = groups.iter().filter(lives).collect();
    let counted: Vec<u64> = living.iter().filter_map(|group| v1(group).map(|ns| ns / 1000)).collect();
    let counted = if counted.is_empty() { living.iter().filter_map(|group| v2(group)).collect() } else { counted };
    assert_eq!(counted.len(), 1, "one sandbox: {living:?}");
    counted[0]
}

/// What is read from a file that is not in memory shows, within the kernel's read-ahead; what is in memory is no reading.
#[tokio::test]
async fn what_is_read_from_disk_is_counted() {
    const BYTES: u64 = 8 * MIB;
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    if not event: return 0\n    \
                  with open('/var/task/big.bin', 'rb') as file: return len(file.read())\n";
    // Nothing that an archive could make smaller.
    let noise = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).to_le_bytes();
    let noise: Vec<u8> = (0..BYTES / 8).flat_map(noise).collect();
    let archive = archive::zip(&[("main.py", source.as_bytes()), ("big.bin", &noise)]);
    daemon.deploy(merged(zipped("f", "python", &archive), json!({ "memoryMb": 256 }))).await;
    daemon.call("f", &json!(false)).await;
    forget(&daemon.data_dir(), "big.bin");
    let cold = daemon.call("f", &json!(true)).await;
    assert_eq!(cold["result"], BYTES, "{cold}");
    let read = number(&cold, "diskRead");
    assert!((BYTES..BYTES + 4 * MIB).contains(&read), "{read} bytes for a file of {BYTES}: {cold}");
    let cached = daemon.call("f", &json!(true)).await;
    assert!(number(&cached, "diskRead") < MIB, "{cached}");
    assert_eq!(number(&cached, "diskWrite"), 0, "/tmp and /output are memory: {cached}");
}

/// Drops a file from the kernel's memory, wherever below `dir` it is.
fn forget(dir: &Path, name: &str) {
    let mut open = vec![dir.to_owned()];
    let mut found = 0;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("a readable directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else if entry.file_name() == name {
                let file = fs::File::open(entry.path()).expect("a readable file");
                file.sync_all().expect("it can be written out");
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("the kernel takes advice");
                found += 1;
            }
        }
    }
    assert_eq!(found, 1, "{name} was unpacked once");
}

#[tokio::test]
async fn what_children_use_counts() {
    let daemon = Daemon::start().await;
    let source = r#"
import subprocess, sys
BURN = """
import time
kept = b"x" * (50 << 20)
end = time.process_time() + 0.3
while time.process_time() < end: pass
"""
def handler(event, context):
    if event: subprocess.run([sys.executable, '-c', BURN], check=True)
"#;
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 1792 })).await;
    let idle = daemon.call("f", &json!(false)).await;
    let busy = daemon.call("f", &json!(true)).await;
    let after = daemon.call("f", &json!(false)).await;
    assert_eq!(busy["status"], "SUCCESS", "{busy}");
    assert!((280_000..900_000).contains(&number(&busy, "cpuUs")), "{busy}");
    assert!(number(&after, "cpuUs") < 50_000, "{after}");
    let peaks = [&idle, &busy, &after].map(|record| number(record, "peakMemoryBytes"));
    assert!(peaks[1] >= peaks[0] + 45 * MIB && peaks[2] + 40 * MIB < peaks[1], "{peaks:?}");
}

/// Six processes that work at once on less than six processors wait for each other.
#[tokio::test]
async fn waiting_for_a_processor_is_told_where_the_kernel_tells_it() {
    let daemon = Daemon::start().await;
    let source = r#"
import os, time
def burn():
    end = time.process_time() + 0.15
    while time.process_time() < end: pass
    os._exit(0)
def handler(event, context):
    pids = []
    for _ in range(event):
        pid = os.fork()
        if pid == 0: burn()
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
    time.sleep(0.02)
"#;
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 1792 })).await;
    let busy = daemon.call("f", &json!(6)).await;
    assert_eq!(busy["status"], "SUCCESS", "{busy}");
    let told = daemon.footprint().cgroups().iter().any(|group| group.join("cpu.pressure").exists());
    if !told {
        assert!(busy.get("pressure").is_none(), "no v2 group, no account: {busy}");
        return;
    }
    let waited = |record: &Value| record["pressure"]["cpuUs"].as_u64().unwrap_or_else(|| panic!("none in {record}"));
    assert!(waited(&busy) > 50_000, "{busy}");
    let idle = daemon.call("f", &json!(0)).await;
    assert!(waited(&idle) < waited(&busy), "of this call, not of the sandbox's life: {idle}");
    let seconds = daemon.metrics().await.sum("faasd_worker_pressure_seconds_total", &["resource=\"cpu\""]);
    assert!(seconds > 0.05, "{seconds}");
}

/// Whoever ended a sandbox is named in the record, and counted.
#[tokio::test]
async fn who_ended_a_sandbox_is_counted() {
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 100).start().await;
    let source = r#"
import os, signal, time
def handler(event, context):
    if event == 'oom': return len(b'x' * (600 << 20))
    if event == 'timeout': time.sleep(60)
    if event == 'signal': os.kill(os.getpid(), signal.SIGSEGV)
    if event == 'exit': os._exit(3)
    return 1
"#;
    daemon.deploy_python_with("f", source, json!({ "timeoutMs": 2000 })).await;
    for (how, error, cause) in [
        ("oom", "OutOfMemory", "out_of_memory"),
        ("timeout", "Timeout", "timeout"),
        ("signal", "Crashed", "signal"),
        ("exit", "Crashed", "exited"),
    ] {
        let record = daemon.call("f", &json!(how)).await;
        assert_eq!(record["errorType"], error, "{how}: {record}");
        let label = format!("cause=\"{cause}\"");
        let counted = daemon.metrics().await.sum("faasd_worker_sandbox_kills_total", &[&label]);
        assert_eq!(counted, 1.0, "{cause}");
        assert_eq!(daemon.result("f", &json!("fine")).await, 1);
    }
    assert_eq!(daemon.metrics().await.sum("faasd_worker_sandbox_kills_total", &[]), 4.0);
}

/// The gauges are what the kernel says, at most a look old.
#[tokio::test]
async fn gauges_show_what_sandboxes_use() {
    let daemon = Daemon::with("METRICS__SAMPLE_MS", 100).start().await;
    let source = "kept = []\ndef handler(event, context):\n    kept.append(b'x' * (event << 20))\n";
    daemon.deploy_python_with("large", source, json!({ "memoryMb": 256 })).await;
    daemon.deploy_python("small", "def handler(event, context):\n    return 1\n").await;
    daemon.call("large", &json!(50)).await;
    daemon.call("small", &json!(0)).await;
    let used = |samples: &Samples, name: &str| {
        samples.sum("faasd_worker_function_memory_bytes", &[&format!("function=\"{name}\"")])
    };
    let since = Instant::now();
    let samples = loop {
        let samples = daemon.metrics().await;
        if used(&samples, "large") > 50.0 * MIB as f64 && used(&samples, "small") > 0.0 {
            break samples;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{}", samples.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (large, small) = (used(&samples, "large"), used(&samples, "small"));
    assert!(large < 200.0 * MIB as f64 && small < 50.0 * MIB as f64, "{large} {small}");
    assert!(samples.sum("faasd_worker_sandbox_memory_bytes", &[]) >= large + small);
    assert!(samples.sum("faasd_worker_sandbox_tasks", &[]) >= 4.0, "an init and a runtime each");
    assert!(samples.sum("faasd_worker_sandbox_cpu_seconds_total", &[]) > 0.0);
    assert_eq!(samples.sum("faasd_worker_function_sandboxes", &["function=\"large\""]), 1.0);
}

#[tokio::test]
async fn waiting_costs_time_and_no_processor() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(0.5)\n").await;
    daemon.call("f", &json!({})).await;
    let record = daemon.call("f", &json!({})).await;
    assert!(number(&record, "cpuUs") < 50_000, "{record}");
    for (name, value) in [("durationMs", &record["durationMs"]), ("handlerMs", &record["timings"]["handlerMs"])] {
        assert!(value.as_f64().is_some_and(|ms| (495.0..900.0).contains(&ms)), "{name}: {record}");
    }
}
