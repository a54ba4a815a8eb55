//! What `/proc` and the clocks tell code in a sandbox: of itself enough, of the host nothing; and that the first process is out of reach.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// What may be read as the host has it.
const SHOWN: [&str; 7] = ["cpuinfo", "meminfo", "filesystems", "version", "crypto", "execdomains", "sysvipc"];

/// Lists directories and reads files, the first kilobyte.
const LOOK: &str = r#"
import os
def look(path):
    try:
        if os.path.isdir(path): return sorted(os.listdir(path))
        with open(path, 'rb') as file: return file.read(1024).decode('latin-1')
    except OSError as error:
        return {'error': error.errno}
def handler(event, context):
    return {path: look(path) for path in event}
"#;

#[tokio::test]
async fn of_the_host_proc_shows_the_processor_and_the_memory_alone() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", LOOK).await;
    let named = |entry: fs::DirEntry| entry.file_name().into_string().ok();
    let is_entry = |name: &String| {
        let path = Path::new("/proc").join(name);
        let of_processes = name.bytes().all(|byte| byte.is_ascii_digit()) || path.is_symlink();
        !of_processes && !SHOWN.contains(&name.as_str())
    };
    let hidden: Vec<String> =
        fs::read_dir("/proc").expect("/proc").filter_map(|entry| named(entry.ok()?)).filter(is_entry).collect();
    assert!(hidden.len() > 20, "{hidden:?}");
    let paths: Vec<String> = hidden.iter().map(|name| format!("/proc/{name}")).collect();
    let seen = daemon.result("f", &json!(paths)).await;
    for path in &paths {
        let what = &seen[path];
        let closed = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 == 0);
        match path.as_str() {
            "/proc/sys" => assert_eq!(*what, json!(["fs", "kernel", "net", "vm"])),
            "/proc/loadavg" => assert_eq!(*what, "0.00 0.00 0.00 1/2 2\n"),
            "/proc/stat" => {
                let lines = what.as_str().expect("text").lines();
                let busy = lines.filter(|line| line.starts_with("cpu") || line.starts_with("intr"));
                assert!(busy.flat_map(|line| line.split(' ').skip(1)).all(|number| number == "0"), "{what}");
            }
            _ => assert!(*what == json!([]) || *what == "" || closed && what["error"].is_number(), "{path}: {what}"),
        }
    }
    let seen = daemon.result("f", &json!(["/proc/cpuinfo", "/proc/meminfo", "/proc/self/status", "/sys"])).await;
    assert!(seen["/proc/cpuinfo"].as_str().is_some_and(|text| text.contains("processor")), "{seen}");
    assert!(seen["/proc/meminfo"].as_str().is_some_and(|text| text.contains("MemTotal")), "{seen}");
    assert!(seen["/proc/self/status"].as_str().is_some_and(|text| text.contains("Uid:\t1000")), "{seen}");
    assert!(seen["/sys"]["error"].is_number(), "{seen}");
}

#[tokio::test]
async fn what_tells_hosts_apart_is_not_there() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", LOOK).await;
    let paths = [
        "/proc/sys/kernel/random/boot_id",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/cmdline",
        "/proc/kmsg",
        "/proc/kcore",
        "/proc/timer_list",
        "/proc/sysrq-trigger",
        "/dev/kmsg",
    ];
    let seen = daemon.result("f", &json!(paths)).await;
    for path in paths {
        assert!(seen[path]["error"].is_number() || seen[path] == "", "{path}: {seen}");
    }
    let seen = daemon.result("f", &json!(["/proc/self/cgroup", "/proc/self/mounts", "/dev"])).await;
    let groups = seen["/proc/self/cgroup"].as_str().expect("groups");
    assert!(groups.lines().all(|line| line.ends_with(":/")), "each group is the root of what is seen: {groups}");
    assert!(!seen["/proc/self/mounts"].to_string().contains(&daemon.data_dir().display().to_string()), "{seen}");
    let devices = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
    assert_eq!(seen["/dev"], json!(devices));
}

#[tokio::test]
async fn every_mount_is_closed_to_what_it_is_not_for() {
    let daemon = Daemon::start().await;
    let source = "def handler(event, context):\n    return open('/proc/self/mounts').read().splitlines()\n";
    daemon.deploy_python("f", source).await;
    let mounts = daemon.result("f", &json!(null)).await;
    let mounts = mounts.as_array().expect("lines");
    for line in mounts.iter().filter_map(Value::as_str) {
        let mut words = line.split(' ').skip(1);
        let (at, options) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let has = |option: &str| options.split(',').any(|found| found == option);
        assert!(has("nosuid"), "{line}");
        assert!(has("nodev") || at.starts_with("/dev/"), "{line}");
        assert!(has("ro") || ["/tmp", "/output", "/proc"].contains(&at) || at.starts_with("/dev/"), "{line}");
        assert!(at != "/proc" || has("noexec") && (has("hidepid=invisible") || has("hidepid=2")), "{line}");
    }
    assert!(mounts.iter().any(|line| line.as_str().is_some_and(|line| line.contains(" /var/task "))), "{mounts:?}");
}

#[tokio::test]
async fn the_first_process_is_out_of_reach() {
    let daemon = Daemon::start().await;
    let source = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        return ['done', str(what())]
    except OSError as error:
        return ['refused', error.strerror]
def handler(event, context):
    return {
        'listed': '1' in os.listdir('/proc'),
        'open': [tried(lambda: open(path).read()) for path in ('/proc/1/status', '/proc/1/environ', '/proc/1/maps')],
        'descriptors': [tried(lambda: os.listdir('/proc/1/fd'))] + [tried(lambda: open(f'/proc/1/fd/{n}', 'wb')) for n in range(64)],
        'signals': [tried(lambda: os.kill(1, n)) for n in (0, 9, 15, 17, 19)],
        'self': 'Uid' in open('/proc/self/status').read(),
    }
"#;
    daemon.deploy_python("f", source).await;
    let seen = daemon.result("f", &json!(null)).await;
    assert_eq!((&seen["listed"], &seen["self"]), (&json!(false), &json!(true)), "{seen}");
    for tried in ["open", "descriptors", "signals"] {
        let outcomes = seen[tried].as_array().expect("outcomes");
        assert!(outcomes.iter().all(|outcome| outcome[0] == "refused"), "{tried}: {seen}");
    }
    assert_eq!(daemon.call("f", &json!(null)).await["startType"], "WARM", "it looks after the same sandbox");
}

#[tokio::test]
async fn clocks_begin_with_the_sandbox() {
    if !Path::new("/proc/self/ns/time").exists() {
        eprintln!("this kernel has no time namespaces: sandboxes see the host's clocks, as `faasd doctor` says");
        return;
    }
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").expect("/proc/uptime");
        text.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).expect("seconds")
    };
    let before = uptime();
    let daemon = Daemon::start().await;
    let source = "import time\ndef handler(event, context):\n    return [time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic(), time.time()]\n";
    daemon.deploy_python("f", source).await;
    let seen = daemon.result("f", &json!(null)).await;
    let seconds = |at: usize| seen[at].as_f64().expect("seconds");
    let lived = uptime() - before + 2.0;
    assert!(before > lived, "the host has been up long enough for a difference");
    assert!(seconds(0) < lived && seconds(1) < lived, "{seen}, the daemon lives since {lived} s");
    assert!(seconds(2) > 1.6e9, "the wall clock is everybody's: {seen}");
}
