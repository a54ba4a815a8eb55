//! Sandboxes end with all that was in them, however hostile: no process, group, mount, descriptor or byte is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::footprint::bytes_below;
use crate::support::platform::ECHO;

/// As many as fit a test; the ten thousand of the promise are asked for by name.
const CALLS: usize = 300;
const CALLS_VARIABLE: &str = "HOSTILE_CALLS";
const CALLERS: usize = 6;
/// Before things are counted for the first time.
const WARM_UP: usize = 40;

/// Everything a function might do to outlive its call, in one.
const HOSTILE: &str = r#"
import ctypes, os, signal, socket, subprocess, sys, threading, time
MODES = ['exit', 'abort', 'segfault', 'kill', 'daemon', 'double-fork', 'orphans', 'tmp', 'inodes', 'stop', 'stop-all', 'close', 'garbage',
         'raise', 'timeout', 'ignore-term', 'memory', 'forks', 'threads', 'kill-all', 'flood', 'signals-to-init', 'sockets', 'fine', 'fine']
def detach():
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True: time.sleep(60)
def handler(event, context):
    how = MODES[event % len(MODES)]
    if how == 'exit': os._exit(event % 256)
    if how == 'abort': os.abort()
    if how == 'segfault': ctypes.string_at(0)
    if how == 'kill': os.kill(os.getpid(), signal.SIGKILL)
    if how == 'daemon':
        if os.fork() == 0: detach()
    if how == 'double-fork':
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: detach()
            os._exit(0)
    if how == 'orphans':
        for _ in range(10):
            if os.fork() == 0:
                if os.fork() == 0: detach()
                os._exit(0)
        os._exit(1)
    if how == 'tmp':
        try:
            with open('/tmp/big', 'wb', 0) as file:
                while True: file.write(bytes(1 << 20))
        except OSError: pass
        if event % 2: os._exit(2)
    if how == 'inodes':
        try:
            for n in range(20000): open(f'/tmp/{n}', 'w').close()
        except OSError: pass
    if how == 'stop': os.kill(os.getpid(), signal.SIGSTOP)
    if how == 'stop-all':
        for _ in range(3):
            if os.fork() == 0: detach()
        os.kill(-1, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == 'close': os.closerange(0, 256)
    if how == 'garbage':
        for fd in range(3, 16):
            try: os.write(fd, b'\xff' * 4096)
            except OSError: pass
    if how == 'raise': raise ValueError('no')
    if how == 'timeout': time.sleep(30)
    if how == 'ignore-term':
        if os.fork() == 0: detach()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: time.sleep(1)
    if how == 'memory':
        kept = []
        while True: kept.append(b'x' * (1 << 22))
    if how == 'forks':
        try:
            while True:
                if os.fork() == 0: detach()
        except OSError: pass
    if how == 'threads':
        try:
            while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError: pass
    if how == 'kill-all': os.kill(-1, signal.SIGKILL)
    if how == 'flood':
        for _ in range(500): print('x' * 1000)
    if how == 'signals-to-init':
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM):
            try: os.kill(1, number)
            except OSError: pass
    if how == 'sockets':
        global kept_open
        kept_open = [socket.socketpair() for _ in range(200)]
        for a, _ in kept_open: a.send(b'x' * 1000)
    return how
"#;

/// What is counted before and after.
#[derive(Debug)]
struct Counts {
    daemon_fds: usize,
    daemon_kib: u64,
    launcher_fds: usize,
    launcher_kib: u64,
    launcher_mounts: usize,
    sandboxes: usize,
    groups: usize,
    bytes: u64,
}

pub fn launcher_of(daemon: &Daemon) -> i32 {
    let children = fs::read_dir("/proc").expect("/proc can be listed").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let is_child = status.lines().any(|line| line == format!("PPid:\t{}", daemon.pid()));
        (is_child && command.ends_with(b"sandbox-launcher\0")).then_some(pid)
    });
    children.max().expect("a launcher")
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn entries(path: impl AsRef<Path>) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

impl Counts {
    fn of(daemon: &Daemon) -> Self {
        let launcher = launcher_of(daemon);
        let mounts = fs::read_to_string(format!("/proc/{launcher}/mountinfo")).unwrap_or_default();
        let footprint = daemon.footprint();
        let of_sandboxes = |path: &&PathBuf| path.components().any(|part| part.as_os_str().len() == 12);
        let temporary = ["run", "code.tmp"].map(|name| bytes_below(&daemon.data_dir().join(name)));
        Self {
            daemon_fds: entries(format!("/proc/{}/fd", daemon.pid())),
            daemon_kib: resident_kib(daemon.pid()),
            launcher_fds: entries(format!("/proc/{launcher}/fd")),
            launcher_kib: resident_kib(launcher),
            launcher_mounts: mounts.lines().count(),
            sandboxes: footprint.sandbox_processes().len(),
            groups: footprint.cgroups().iter().filter(of_sandboxes).count(),
            bytes: temporary.iter().sum::<u64>() + bytes_below(&footprint.temp_dir()),
        }
    }

    /// When nothing runs, ends or starts any more.
    async fn at_rest(daemon: &Daemon) -> Self {
        let since = Instant::now();
        loop {
            let metrics = daemon.metrics().await;
            let busy: f64 = ["busy", "starting", "ending", "warm"]
                .map(|state| metrics.sum("faasd_worker_sandboxes", &[&format!("state=\"{state}\"")]))
                .iter()
                .sum();
            if busy == 0.0 || since.elapsed() > Duration::from_secs(20) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                return Self::of(daemon);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn calls(daemon: &Arc<Daemon>, range: std::ops::Range<usize>) {
    let next = Arc::new(AtomicUsize::new(range.start));
    let end = range.end;
    let callers = (0..CALLERS).map(|_| {
        let (daemon, next) = (daemon.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    return;
                }
                let answer = daemon.run("hostile", &json!(n)).send().await;
                assert_eq!(answer.status, 200, "call {n}: {}", answer.text());
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("a caller");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_calls_leave_nothing() {
    let most = std::env::var(CALLS_VARIABLE).ok().and_then(|most| most.parse().ok()).unwrap_or(CALLS);
    let daemon =
        Daemon::with("SANDBOX__GRACE_MS", 100).set("POOL__KEEP_ALIVE_S", 1).set("LOG__LEVEL", "warn").start().await;
    let daemon = Arc::new(daemon);
    let settings = json!({ "memoryMb": 128, "timeoutMs": 1500 });
    daemon.deploy_python_with("hostile", HOSTILE, settings).await;
    daemon.deploy_python("echo", ECHO).await;
    calls(&daemon, 0..WARM_UP).await;
    let before = Counts::at_rest(&daemon).await;
    let begun = Instant::now();
    calls(&daemon, WARM_UP..WARM_UP + most).await;
    let took = begun.elapsed();
    let after = Counts::at_rest(&daemon).await;
    println!("{most} hostile calls in {took:?}\nbefore {before:?}\nafter  {after:?}");
    assert_eq!(daemon.result("echo", &json!("still here")).await, "still here");
    assert!(after.daemon_fds <= before.daemon_fds + 16, "descriptors: {before:?}, then {after:?}");
    assert!(after.launcher_fds <= before.launcher_fds + 2, "descriptors: {before:?}, then {after:?}");
    assert!(after.launcher_mounts <= before.launcher_mounts + 4, "mounts: {before:?}, then {after:?}");
    assert!(after.launcher_kib <= before.launcher_kib + 1024, "memory: {before:?}, then {after:?}");
    assert!(after.daemon_kib <= before.daemon_kib + (64 << 10), "the daemon grew: {before:?}, then {after:?}");
    assert!(after.sandboxes <= before.sandboxes + 6, "processes: {before:?}, then {after:?}");
    assert!(after.groups <= before.groups + 24, "groups: {before:?}, then {after:?}");
    assert_eq!(after.bytes, 0, "temporary files: {after:?}");
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("faasd_sandbox_quarantined", &[]), 0.0);
    // On a busy machine a hundred processes may take longer to end than is usual, and be told of.
    let is_error = |line: &&str| line.contains("ERROR") && !line.contains("does not end");
    let log = daemon.log();
    assert_eq!(log.lines().find(is_error), None);

    let footprint = daemon.footprint().clone();
    let mut daemon = Arc::into_inner(daemon).expect("no caller is left");
    let (status, _) = daemon.sigterm(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}");
    footprint.assert_nothing_remains(Duration::from_secs(5));
}

/// A process that can't be killed: here one that this test has frozen by other means, as a broken disk would.
#[tokio::test]
async fn a_sandbox_that_can_t_be_killed_is_kept_apart_and_collected_later() {
    let Some(freezer) = Freezer::make() else { return eprintln!("not tried: no v1 freezer to hang a process with") };
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 100).start().await;
    let source = "import subprocess\ndef handler(event, context):\n    if event: subprocess.run(['sleep', event])\n    return 'done'\n";
    daemon.deploy_python("f", source).await;
    let job = daemon.submit("f", &json!(SLEEP)).await;
    let since = Instant::now();
    let sleeper = loop {
        let is_sleeper = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == format!("sleep\0{SLEEP}\0").as_bytes())
        };
        if let Some(pid) = daemon.footprint().sandbox_processes().into_iter().find(is_sleeper) {
            break pid;
        }
        assert!(since.elapsed() < Duration::from_secs(25), "the function does not begin");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    freezer.hang(sleeper);
    assert_eq!(daemon.delete(&format!("/invocations/{job}")).send().await.status / 100, 2);
    let quarantined = async |count: f64| {
        let since = Instant::now();
        while daemon.metrics().await.sum("faasd_sandbox_quarantined", &[]) != count {
            assert!(since.elapsed() < Duration::from_secs(30), "{count} were expected in quarantine");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    quarantined(1.0).await;
    assert_eq!(daemon.wait_final(&job).await["status"], "CANCELLED");
    assert!(daemon.log().contains("does not end"), "an operator is told");
    freezer.thaw();
    quarantined(0.0).await;
    assert_eq!(daemon.result("f", &json!("")).await, "done");
}

/// So many seconds does nobody else sleep.
const SLEEP: &str = "31.4159";

/// A v1 freezer keeps a process even from SIGKILL until it is thawed.
struct Freezer(PathBuf);

impl Freezer {
    fn make() -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup/freezer");
        let path = root.join(format!("faasd-hang-{}", std::process::id()));
        (root.join("cgroup.procs").exists() && fs::create_dir(&path).is_ok()).then_some(Self(path))
    }

    fn hang(&self, pid: i32) {
        // One that has ended meanwhile hangs nobody.
        let _ = fs::write(self.0.join("cgroup.procs"), pid.to_string());
        let _ = fs::write(self.0.join("freezer.state"), "FROZEN");
    }

    fn thaw(&self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let since = Instant::now();
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Nobody restarts a daemon whose data directory is gone: what it left, the next one of the same prefix clears away.
#[tokio::test]
async fn what_a_daemon_left_for_good_is_swept_by_the_next() {
    let daemon = Daemon::start().await;
    let orphans: Vec<PathBuf> = daemon
        .footprint()
        .cgroups()
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == daemon.footprint().cgroup_prefix.as_str()))
        .map(|prefix| prefix.join("0123456789ab/7"))
        .collect();
    assert!(!orphans.is_empty());
    for orphan in &orphans {
        fs::create_dir_all(orphan).expect("a group");
    }
    let mut left = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
    fs::write(orphans[0].join("cgroup.procs"), left.id().to_string()).expect("it joins the group");
    let mut daemon = daemon;
    daemon.restart().await;
    let ended = left.try_wait().expect("it can be looked at");
    let _ = left.kill();
    let _ = left.wait();
    assert!(ended.is_some_and(|status| !status.success()), "it still runs");
    assert!(orphans.iter().all(|orphan| !orphan.exists()), "{orphans:?}");
    daemon.deploy_python("f", ECHO).await;
    assert_eq!(daemon.result("f", &json!(1)).await, 1);
}
