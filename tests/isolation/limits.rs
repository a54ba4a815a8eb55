//! What a function may use of the machine: asking for more hurts itself alone, and tells it so.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

/// Fills a directory with bytes or with files, until it is told to stop.
const FILLER: &str = r#"
import errno, os
def handler(event, context):
    directory, what = event
    if what == 'list': return len(os.listdir(directory))
    written = 0
    try:
        if what == 'bytes':
            with open(directory + '/big', 'wb', 0) as file:
                while True: written += file.write(bytes(1 << 20))
        while True:
            if what == 'files': open(f'{directory}/{written}', 'w').close()
            if what == 'directories': os.mkdir(f'{directory}/{written}')
            if what == 'links': os.symlink('x' * 60, f'{directory}/{written}')
            written += 1
    except OSError as error:
        return [written, errno.errorcode[error.errno]]
"#;

/// What fills `/tmp` is memory of the function's own: a small one is told that no space is left, and lives.
#[tokio::test]
async fn a_small_function_that_fills_tmp_is_told_so_and_lives() {
    let daemon = Daemon::start().await;
    for (memory_mb, most_mb) in [(128, 96), (64, 32)] {
        let name = format!("f{memory_mb}");
        daemon.deploy_python_with(&name, FILLER, json!({ "memoryMb": memory_mb })).await;
        let written = daemon.result(&name, &json!(["/tmp", "bytes"])).await;
        assert_eq!(written[1], "ENOSPC", "{written}");
        let megabytes = written[0].as_u64().map(|bytes| bytes >> 20);
        assert!(megabytes.is_some_and(|mb| mb <= most_mb && mb >= most_mb - 2), "{written}");
        let shared = daemon.result(&name, &json!(["/output", "bytes"])).await;
        assert_eq!(shared, json!([0, "ENOSPC"]), "one size bounds both");
        let record = daemon.call(&name, &json!(["/tmp", "list"])).await;
        assert_eq!((&record["startType"], &record["result"]), (&json!("WARM"), &json!(1)), "{record}");
    }
}

#[tokio::test]
async fn files_without_contents_are_bounded_too() {
    let daemon = Daemon::start().await;
    for what in ["files", "directories", "links"] {
        daemon.deploy_python_with(what, FILLER, json!({ "memoryMb": 128 })).await;
        let made = daemon.result(what, &json!(["/tmp", what])).await;
        assert!(made[0].as_u64().is_some_and(|made| made > 1000 && made < 10_000), "{what}: {made}");
        assert_eq!(made[1], "ENOSPC", "{what}");
    }
}

/// One function that tries what only limits of a process stop.
const GREEDY: &str = r#"
import ctypes, errno, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    return 'done' if libc.syscall(number, *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
def handler(event, context):
    if event == 'limits':
        names = [name for name in dir(resource) if name.startswith('RLIMIT_')]
        return {name: resource.getrlimit(getattr(resource, name)) for name in names}
    if event == 'ipc':
        calls = {'shmget': (29, 0, 4096, 0o1600), 'semget': (64, 0, 1, 0o1600), 'msgget': (68, 0, 0o1600),
                 'mq_open': (240, b'q', 0o102, 0o600, None), 'keyctl': (250, 0, -3, 1), 'add_key': (248, b'user', b'x', b'y', 1, -3)}
        return {name: call(*arguments) for name, arguments in calls.items()}
    if event == 'sockets':
        kept, sent = [], 0
        try:
            while True:
                a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
                a.setblocking(False)
                kept.append((a, b))
                try:
                    while True: sent += a.send(bytes(65536))
                except BlockingIOError: pass
        except OSError as error:
            return [len(kept), errno.errorcode[error.errno]]
    return 'fine'
"#;

#[tokio::test]
async fn limits_of_each_process_are_low_and_stay_so() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", GREEDY).await;
    let seen = daemon.result("f", &json!("limits")).await;
    for (name, soft, hard) in [
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_MSGQUEUE", 0, 0),
        ("RLIMIT_RTPRIO", 0, 0),
        ("RLIMIT_NICE", 0, 0),
        ("RLIMIT_NPROC", 128, 128),
        ("RLIMIT_NOFILE", 1024, 1024),
        ("RLIMIT_MEMLOCK", 65_536, 65_536),
        ("RLIMIT_SIGPENDING", 1024, 1024),
        ("RLIMIT_STACK", 8 << 20, 64 << 20),
    ] {
        assert_eq!(seen[name], json!([soft, hard]), "{name}");
    }
}

#[tokio::test]
async fn shared_memory_message_queues_and_keys_are_not_to_be_had() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", GREEDY).await;
    let record = daemon.call("f", &json!("ipc")).await;
    if record["status"] != "SUCCESS" {
        // Killed at the first of them is refused as well.
        assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains("SIGSYS")), "{record}");
        return;
    }
    for (name, outcome) in record["result"].as_object().expect("an object") {
        assert!(outcome != "done", "{name}: {outcome}");
    }
}

/// What waits in sockets is the function's memory as well: too much of it ends the function, never the machine.
#[tokio::test]
async fn bytes_in_sockets_are_the_function_s_own_memory() {
    let daemon = Daemon::start().await;
    daemon.deploy_python_with("f", GREEDY, json!({ "memoryMb": 64 })).await;
    let record = daemon.call("f", &json!("sockets")).await;
    let peak = record["peakMemoryBytes"].as_u64().unwrap_or(0);
    assert!(peak <= 64 << 20, "{record}");
    assert!(record["status"] == "SUCCESS" || record["errorType"] == "OutOfMemory", "{record}");
    assert_eq!(daemon.result("f", &json!("")).await, "fine");
}

const CHILD_EATS: &str = r#"
import os, time
def handler(event, context):
    pid = os.fork()
    if pid == 0:
        kept = []
        while True: kept.append(b'x' * (1 << 20))
    os.waitpid(pid, 0)
    if event == 'wait': time.sleep(30)
    return 'as if nothing had been'
"#;

/// Memory is the sandbox's: where the kernel has to kill a child for it, all of it goes, and the record says why.
#[tokio::test]
async fn a_child_that_uses_up_the_memory_takes_its_function_along() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", CHILD_EATS).await;
    for how in ["return", "wait"] {
        let since = Instant::now();
        let record = daemon.call("f", &json!(how)).await;
        assert_eq!(
            (&record["status"], &record["errorType"]),
            (&json!("FAILED"), &json!("OutOfMemory")),
            "{how}: {record}"
        );
        assert!(since.elapsed() < Duration::from_secs(20), "nobody waits for what was left");
    }
}

const SLEEPER: &str = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return 1\n";

#[tokio::test]
async fn a_call_beyond_its_owner_s_number_is_429_and_others_are_served() {
    let daemon = Daemon::with("LIMITS__CONCURRENCY_PER_OWNER", 2).start().await;
    let scopes = ["deploy", "invoke", "read"];
    let (ann, bob) = (daemon.caller("ann", &scopes).await, daemon.caller("bob", &scopes).await);
    ann.deploy_python("slow", SLEEPER).await;
    bob.deploy_python("echo", ECHO).await;
    let running: Vec<_> = (0..2)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move { ann.call("slow", &json!(3)).await })
        })
        .collect();
    while daemon.metrics().await.sum("faasd_worker_active_calls", &[]) < 2.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = ann.run("slow", &json!(0)).send().await;
    let (sentence, code) = answer.refused(429);
    assert_eq!(code, "TooManyRequests", "{sentence}");
    assert!(sentence.contains("ann") && sentence.contains('2'), "{sentence}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(bob.result("echo", &json!(1)).await, 1);
    for call in running {
        assert_eq!(call.await.unwrap()["status"], "SUCCESS");
    }
    assert_eq!(ann.result("slow", &json!(0)).await, 1);
}

/// Jobs over their owner's number wait in the queue: uncounted, and in nobody's way.
#[tokio::test]
async fn jobs_beyond_their_owner_s_number_wait_and_hold_up_nobody_else() {
    let daemon = Daemon::with("LIMITS__CONCURRENCY_PER_OWNER", 1).start().await;
    let scopes = ["deploy", "invoke", "read"];
    let (ann, bob) = (daemon.caller("ann", &scopes).await, daemon.caller("bob", &scopes).await);
    ann.deploy_python("slow", SLEEPER).await;
    bob.deploy_python("echo", ECHO).await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(ann.submit("slow", &json!(0.7)).await);
    }
    ann.wait_running(&jobs[0]).await;
    let job = bob.submit("echo", &json!(1)).await;
    bob.wait_final(&job).await;
    let waiting = statuses(&ann, &jobs).await.iter().filter(|status| *status == "QUEUED").count();
    assert!(waiting >= 2, "the other owner's job went past those that wait");
    for job in &jobs {
        let record = ann.wait_final(job).await;
        assert_eq!((&record["status"], &record["attempt"]), (&json!("SUCCESS"), &json!(1)), "{record}");
    }
}

async fn statuses(client: &crate::support::client::Client, jobs: &[String]) -> Vec<Value> {
    let mut all = Vec::new();
    for job in jobs {
        all.push(client.status(job).await["status"].clone());
    }
    all
}

/// Reading the package back from the disk is held to the ceiling that is configured.
#[tokio::test]
async fn ceilings_on_io_reach_the_kernel() {
    let daemon = Daemon::with("SANDBOX__IO_READ_BYTES_PER_S", 12_345_678)
        .set("SANDBOX__IO_OPERATIONS_PER_S", 4321)
        .start()
        .await;
    daemon.deploy_python("f", ECHO).await;
    daemon.call("f", &json!(1)).await;
    let mut seen = String::new();
    for group in daemon.footprint().cgroups() {
        for file in ["blkio.throttle.read_bps_device", "blkio.throttle.read_iops_device", "io.max"] {
            seen += &std::fs::read_to_string(group.join(file)).unwrap_or_default();
        }
    }
    let on_no_device = daemon.log().contains("sandbox.io_");
    assert!(on_no_device || seen.contains("12345678") && seen.contains("4321"), "{seen}\n{}", daemon.log());
}
