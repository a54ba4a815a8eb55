//! Sandboxes that are forked from a booted interpreter: like any other, strangers to each other, and not dependent on it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::reaper::launcher_of;
use crate::support::daemon::{Builder, Daemon};
use crate::support::surroundings::Surroundings;

/// All that a process can see of how it came to be.
const LOOK: &str = r#"
import os, resource, signal, subprocess, sys, time
def lines(path):
    with open(path) as file: return file.read().splitlines()
KEPT = ('Name', 'Umask', 'Tgid', 'Pid', 'PPid', 'Uid', 'Gid', 'Groups', 'NSpid', 'NSpgid', 'NSsid', 'Threads', 'SigPnd', 'ShdPnd',
    'SigBlk', 'SigIgn', 'SigCgt', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters')
def fork():
    child = os.fork()
    if child == 0: os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def handler(event, context):
    return {
        'status': [line for line in lines('/proc/self/status') if line.split(':')[0] in KEPT],
        'limits': lines('/proc/self/limits'), 'cgroup': lines('/proc/self/cgroup'), 'ids': [os.getpid(), os.getppid(), os.getsid(0), os.getpgrp()],
        'mounts': [line.split()[4:6] for line in lines('/proc/self/mountinfo')],
        'namespaces': sorted(os.listdir('/proc/self/ns')), 'exe': os.readlink('/proc/self/exe'),
        'cmdline': lines('/proc/self/cmdline'), 'environ': open('/proc/self/environ').read().strip('\0').split('\0'),
        'env': sorted(os.environ), 'cwd': os.getcwd(), 'argv': sys.argv, 'path': sys.path, 'flags': str(sys.flags),
        'fds': [[fd, os.readlink('/proc/self/fd/' + fd).split(':')[0]] for fd in sorted(os.listdir('/proc/self/fd'))[:-1]],
        'owners': [os.stat('/proc/self/' + name).st_uid for name in ('environ', 'fd', 'mem', 'maps')],
        'foreign_maps': [line for line in lines('/proc/self/maps') if 'faasd-test' in line],
        'oom': lines('/proc/self/oom_score_adj'), 'nice': os.nice(0), 'scheduling': os.sched_getscheduler(0),
        'streams': [[s.line_buffering, s.encoding, s.errors, s.isatty(), s.seekable()] for s in (sys.stdout, sys.stderr, sys.stdin)],
        'young': time.monotonic() < 600, 'handlers': [str(signal.getsignal(n)) for n in (2, 13, 15, 17)],
        'fork': fork(), 'program': subprocess.run(['id', '-u'], capture_output=True, text=True).stdout,
    }
"#;

async fn look(zygote: bool) -> Value {
    let daemon = Daemon::with("SANDBOX__ZYGOTE", zygote).set("POOL__PREWARMED_PYTHON", 0).start().await;
    daemon.deploy_python("look", LOOK).await;
    let seen = daemon.result("look", &json!({})).await;
    let forked = daemon.metrics().await.sum("faasd_sandbox_starts_total", &["way=\"forked\""]);
    assert_eq!(forked, if zygote { 1.0 } else { 0.0 });
    seen
}

#[tokio::test]
async fn a_forked_sandbox_looks_like_one_that_booted() {
    let (forked, booted) = tokio::join!(look(true), look(false));
    let fields = booted.as_object().expect("an object");
    assert!(fields.len() > 20 && booted["foreign_maps"] == json!([]), "{booted:#}");
    for (name, value) in fields {
        assert_eq!(&forked[name], value, "{name}");
    }
}

/// What one call leaves behind in an interpreter, and whether it is the first to come by.
const TRACES: &str = r#"
import builtins, gc, os, random, sys, uuid
def handler(event, context):
    first = not hasattr(builtins, 'trace') and 'TRACE' not in os.environ and 'trace' not in sys.modules
    builtins.trace = sys.modules['trace'] = event
    os.environ['TRACE'] = 'left'
    print('printed by', event)
    return [first, random.random(), random.getrandbits(64), str(uuid.uuid4()), os.urandom(8).hex(), os.getpid()]
"#;

#[tokio::test]
async fn siblings_share_neither_state_nor_chance() {
    let daemon = Daemon::with("POOL__PREWARMED_PYTHON", 0).start().await;
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        daemon.deploy_python(name, TRACES).await;
        let record = daemon.call(name, &json!(name)).await;
        assert_eq!(record["stdout"], format!("printed by {name}\n"));
        assert_eq!((&record["result"][0], &record["result"][5]), (&json!(true), &json!(2)), "{name}");
        all.extend((1..5).map(|at| record["result"][at].to_string()));
        assert_eq!(daemon.result(name, &json!(name)).await[0], json!(false), "{name} is warm now");
    }
    assert_eq!(daemon.metrics().await.sum("faasd_sandbox_starts_total", &["way=\"forked\""]), 3.0);
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "drawn twice: {all:?}");
}

/// The launcher's children that are no sandbox's first process.
fn zygotes(daemon: &Daemon) -> Vec<i32> {
    let launcher = launcher_of(daemon);
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_zygote = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"shim.py\0"));
    children.filter(is_zygote).collect()
}

async fn wait_for_zygote(daemon: &Daemon, but: Option<i32>) -> i32 {
    let since = Instant::now();
    loop {
        let ready = daemon.metrics().await.sum("faasd_sandbox_zygotes", &[]);
        if let Some(pid) = zygotes(daemon).into_iter().find(|pid| Some(*pid) != but && ready > 0.0) {
            return pid;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "no zygote comes: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_zygote_that_hangs_or_dies_is_replaced_and_nobody_waits_in_vain() {
    const COUNT: &str = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return n\n";
    let daemon = Daemon::with("POOL__PREWARMED_PYTHON", 0).start().await;
    daemon.deploy_python("before", COUNT).await;
    assert_eq!(daemon.result("before", &json!({})).await, 1);
    let killed = wait_for_zygote(&daemon, None).await;
    // Ordered from a process that does not answer: it is ended for that, and the sandbox made without.
    kill(Pid::from_raw(killed), Signal::SIGSTOP).expect("it lives");
    daemon.deploy_python("meanwhile", COUNT).await;
    let called = daemon.call("meanwhile", &json!({})).await;
    assert_eq!((&called["result"], &called["startType"]), (&json!(1), &json!("COLD")), "{called}");
    assert_eq!(daemon.result("before", &json!({})).await, 2, "its children outlive it");
    let other = wait_for_zygote(&daemon, Some(killed)).await;
    kill(Pid::from_raw(other), Signal::SIGKILL).expect("it lives");
    wait_for_zygote(&daemon, Some(other)).await;
    daemon.deploy_python("after", COUNT).await;
    assert_eq!(daemon.result("after", &json!({})).await, 1);
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("faasd_sandbox_zygote_ends_total", &[]), 2.0);
    let of = |way: &str| metrics.sum("faasd_sandbox_starts_total", &[&format!("way=\"{way}\"")]);
    // Executed: the trial at the daemon's start, the one that was being forked, and what the pool ordered while that took so long.
    assert!(of("forked") >= 2.0 && of("executed") >= 2.0, "{} forked, {} executed", of("forked"), of("executed"));
}

#[tokio::test]
async fn an_interpreter_that_can_t_be_forked_is_booted_for_each_sandbox() {
    // Not below /tmp, where a sandbox has its own, though this repository may lie there.
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = if own.starts_with("/tmp") { Path::new("/opt") } else { own };
    let home = tempfile::tempdir_in(place).expect("a temporary directory");
    let venv = home.path().join("venv");
    let made = Command::new("python3").args(["-m", "venv", "--copies", "--without-pip"]).arg(&venv).status();
    assert!(made.is_ok_and(|status| status.success()), "python3 -m venv");
    let library = fs::read_dir(venv.join("lib")).unwrap().flatten().next().expect("a library").path();
    let thread = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n";
    fs::write(library.join("site-packages/thread.pth"), thread).unwrap();
    let program = venv.join("bin/python3");
    let daemon = Daemon::with("RUNTIMES__PYTHON", program.display()).set("POOL__PREWARMED_PYTHON", 0).start().await;
    daemon.deploy_python("look", "import sys\ndef handler(event, context):\n    return sys.prefix\n").await;
    assert_eq!(daemon.result("look", &json!({})).await, json!(venv), "{}", daemon.log());
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("faasd_sandbox_zygotes", &[]), 0.0);
    assert_eq!(metrics.sum("faasd_sandbox_starts_total", &["way=\"forked\""]), 0.0);
    assert!(daemon.log().contains("has started a thread"), "{}", daemon.log());
}

#[tokio::test]
async fn without_user_namespaces_there_is_no_zygote() {
    let daemon = Builder::default().inside(Surroundings::NoUserNamespaces).start().await;
    daemon.deploy_python("f", "def handler(event, context):\n    return 1\n").await;
    assert_eq!(daemon.result("f", &json!({})).await, 1);
    assert_eq!(daemon.metrics().await.sum("faasd_sandbox_starts_total", &["way=\"forked\""]), 0.0);
    assert!(zygotes(&daemon).is_empty());
}
