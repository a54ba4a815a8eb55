//! Functions that misbehave: named rightly, bounded, and never visible in the next call.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Builder, Daemon};
use crate::support::footprint::bytes_below;
use crate::support::platform::inline;

fn short_grace() -> Builder {
    Daemon::with("SANDBOX__GRACE_MS", 500)
}

/// One function that does as it is told, so that "the next call" is a call of the same function.
const OBEDIENT: &str = r#"
import ctypes, os, signal, subprocess, sys, threading, time
def handler(event, context):
    how = event.get('how')
    print('begin', flush=True)
    if how == 'exit': os._exit(3)
    if how == 'segfault': ctypes.string_at(0)
    if how == 'abort': os.abort()
    if how == 'kill': os.kill(os.getpid(), signal.SIGKILL)
    if how == 'memory': return len(bytearray(1 << 30))
    if how == 'memory-slowly':
        kept = []
        while True: kept.append(b'x' * (1 << 20))
    if how == 'forks':
        made = 0
        try:
            while True:
                if os.fork() == 0: time.sleep(60)
                made += 1
        except OSError: pass
        return made
    if how == 'threads':
        made = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                made += 1
        except RuntimeError: pass
        return made
    if how == 'thread-left':
        def later():
            while True:
                time.sleep(0.05)
                print('GHOST', flush=True)
        threading.Thread(target=later, daemon=True).start()
        return 'left one'
    if how == 'child-left':
        subprocess.Popen([sys.executable, '-c', 'import time\nwhile True:\n  time.sleep(0.05)\n  print("GHOST", flush=True)'])
        return 'left one'
    if how == 'tmp-left':
        open('/tmp/GHOST', 'w').write('x')
        return 'left one'
    if how == 'tmp': return os.listdir('/tmp')
    if how == 'close':
        for fd in range(3, 256):
            try: os.close(fd)
            except OSError: pass
        return 'closed'
    if how == 'garbage':
        for fd in range(3, 256):
            try: os.write(fd, b'\xff' * 64)
            except OSError: pass
        return 'wrote'
    return 'fine'
"#;

async fn obedient(daemon: &Daemon) {
    daemon.deploy_python_with("f", OBEDIENT, json!({ "timeoutMs": 8000, "memoryMb": 128 })).await;
}

async fn told(daemon: &Daemon, how: &str) -> Value {
    daemon.call("f", &json!({ "how": how })).await
}

async fn assert_next_is_fine(daemon: &Daemon, after: &str) {
    for _ in 0..3 {
        let record = told(daemon, "").await;
        assert_eq!(
            (&record["status"], &record["result"]),
            (&json!("SUCCESS"), &json!("fine")),
            "after {after}: {record}"
        );
        assert_eq!((&record["stdout"], &record["stderr"]), (&json!("begin\n"), &json!("")), "after {after}: {record}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn deaths_are_named_and_the_next_call_is_fine() {
    let daemon = short_grace().start().await;
    obedient(&daemon).await;
    for (how, error_type, exit_code, word) in [
        ("exit", "Crashed", Some(3), "3"),
        ("segfault", "Crashed", None, "SIGSEGV"),
        ("abort", "Crashed", None, "SIGABRT"),
        ("kill", "Crashed", None, "SIGKILL"),
        ("memory", "OutOfMemory", None, "128"),
        ("memory-slowly", "OutOfMemory", None, "128"),
    ] {
        let answer = daemon.run("f", &json!({ "how": how })).send().await;
        let record = answer.expect(200);
        // A bytearray that doesn't fit may be refused by the interpreter before the kernel has to kill it.
        let refused_by_python =
            how == "memory" && record["errorMessage"].as_str().is_some_and(|m| m.contains("MemoryError"));
        if !refused_by_python {
            assert_eq!(record["errorType"], error_type, "{how}: {record}");
            assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains(word)), "{how}: {record}");
        }
        assert_eq!(record["status"], "FAILED", "{how}: {record}");
        assert_eq!(record["exitCode"].as_i64(), exit_code, "{how}: {record}");
        assert_eq!(record["stdout"], "begin\n", "{how}: what was printed before is kept");
        assert_eq!(answer.header("x-faasd-function-error"), record["errorType"].as_str());
        assert_next_is_fine(&daemon, how).await;
    }
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_swept_away() {
    let daemon = short_grace().start().await;
    obedient(&daemon).await;
    for how in ["forks", "threads"] {
        let record = told(&daemon, how).await;
        if record["status"] == "SUCCESS" {
            assert!(record["result"].as_u64().is_some_and(|made| made <= 128), "{how}: {record}");
        }
        assert_next_is_fine(&daemon, how).await;
        assert!(
            daemon.footprint().sandbox_processes().len() < 20,
            "after {how}: {:?}",
            daemon.footprint().sandbox_processes()
        );
    }
}

#[tokio::test]
async fn what_a_call_leaves_behind_is_never_seen_in_the_next() {
    let daemon = short_grace().start().await;
    obedient(&daemon).await;
    for how in ["thread-left", "child-left"] {
        let record = told(&daemon, how).await;
        assert_eq!(record["result"], "left one", "{record}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_next_is_fine(&daemon, how).await;
        let logs = daemon.get("/functions/f/logs").send().await.text();
        assert!(!logs.contains("GHOST"), "after {how}: {logs}");
    }
}

#[tokio::test]
async fn tmp_belongs_to_one_function_alone() {
    let daemon = Daemon::start().await;
    obedient(&daemon).await;
    daemon.deploy_python("g", OBEDIENT).await;
    told(&daemon, "tmp-left").await;
    assert_eq!(daemon.result("g", &json!({ "how": "tmp" })).await, json!([]));
}

/// The socket to the daemon is inherited: code that closes it or writes to it harms itself alone.
#[tokio::test]
async fn meddling_with_the_daemon_s_socket_ends_the_sandbox_alone() {
    let daemon = short_grace().start().await;
    obedient(&daemon).await;
    for how in ["close", "garbage"] {
        let record = told(&daemon, how).await;
        assert_eq!(record["status"], "FAILED", "{how}: {record}");
        assert_next_is_fine(&daemon, how).await;
    }
    assert_eq!(daemon.get("/health").send().await.status, 200);
}

#[tokio::test]
async fn an_endless_print_ends_at_the_timeout_with_its_output_cut_and_the_disk_bounded() {
    let daemon = short_grace().start().await;
    let source = "def handler(event, context):\n    print('the first line', flush=True)\n    while True:\n        print('x' * 1000)\n";
    daemon.deploy_python_with("f", source, json!({ "timeoutMs": 3000 })).await;
    let before = bytes_below(&daemon.data_dir());
    let since = Instant::now();
    let record = daemon.call("f", &json!({})).await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert_eq!(
        (&record["status"], &record["errorType"]),
        (&json!("TIMEOUT"), &json!("Timeout")),
        "{}",
        record["errorMessage"]
    );
    let stdout = record["stdout"].as_str().expect("text");
    assert!(stdout.starts_with("the first line\n"), "{:?}", &stdout[..100.min(stdout.len())]);
    assert!(stdout.len() >= 1 << 20 && stdout.len() < (1 << 20) + 200, "{} bytes", stdout.len());
    let tail = &stdout[stdout.len() - 150..];
    assert!(tail.contains("cut") || tail.contains("truncated"), "no marker: {tail:?}");
    let grown = bytes_below(&daemon.data_dir()).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes of disk");
    let memory = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let peak: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
        .expect("its peak memory");
    assert!(peak < 300 << 10, "the daemon itself grew to {peak} KiB");
}

#[tokio::test]
async fn a_timeout_gives_the_function_its_grace_and_keeps_what_it_said() {
    let daemon = Daemon::with("SANDBOX__GRACE_MS", 2000).start().await;
    let polite = "import signal, sys, time\ndef bye(*_):\n    print('cleaned up', flush=True)\n    sys.exit(0)\n\
                  signal.signal(signal.SIGTERM, bye)\ndef handler(event, context):\n    print('working', flush=True)\n    time.sleep(30)\n";
    let stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef handler(event, context):\n    \
                    print('working', flush=True)\n    while True:\n        time.sleep(1)\n";
    daemon.deploy_python_with("polite", polite, json!({ "timeoutMs": 700 })).await;
    daemon.deploy_python_with("stubborn", stubborn, json!({ "timeoutMs": 700 })).await;

    let since = Instant::now();
    let record = daemon.call("polite", &json!({})).await;
    let took = since.elapsed();
    assert_eq!((&record["status"], &record["errorType"]), (&json!("TIMEOUT"), &json!("Timeout")), "{record}");
    assert_eq!(record["stdout"], "working\ncleaned up\n", "{record}");
    assert!(took < Duration::from_millis(2400), "ends when it is done, not at the end of the grace: {took:?}");

    let since = Instant::now();
    let record = daemon.call("stubborn", &json!({})).await;
    let took = since.elapsed();
    assert_eq!((&record["status"], &record["stdout"]), (&json!("TIMEOUT"), &json!("working\n")), "{record}");
    assert!(took > Duration::from_millis(2600) && took < Duration::from_secs(6), "killed after the grace: {took:?}");
    for name in ["polite", "stubborn"] {
        let next = daemon.call(name, &json!({})).await;
        assert_ne!(next["startType"], "WARM", "a sandbox that timed out is not used again: {next}");
    }
}

/// A program that runs once per call may not leave anything running either: its sandbox serves no second call then.
#[tokio::test]
async fn what_a_program_leaves_running_ends_its_sandbox() {
    let daemon = Daemon::start().await;
    let source = "#include <unistd.h>\n#include <cstdio>\nint main() {\n  if (fork() == 0) { setsid(); sleep(60); return 0; }\n  \
                  puts(\"{\\\"ok\\\":1}\");\n}\n";
    daemon.post("/functions", &inline("leaves", "cpp", source)).send().await.expect(201);
    for _ in 0..3 {
        let record = daemon.call("leaves", &json!({})).await;
        assert_eq!((&record["status"], &record["result"]["ok"]), (&json!("SUCCESS"), &json!(1)), "{record}");
        assert_ne!(record["startType"], "WARM", "{record}");
    }
    let tidy = "#include <cstdio>\nint main() { puts(\"{\\\"ok\\\":1}\"); }\n";
    daemon.post("/functions", &inline("tidy", "cpp", tidy)).send().await.expect(201);
    daemon.call("tidy", &json!({})).await;
    assert_eq!(daemon.call("tidy", &json!({})).await["startType"], "WARM");
}
