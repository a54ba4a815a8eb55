//! What code in a sandbox can see and touch: its own things, and nothing of the host's.

use std::fs;

use serde_json::json;

use crate::support::daemon::Daemon;

#[tokio::test]
async fn a_sandbox_has_no_privileges() {
    let daemon = Daemon::start().await;
    let source = "import os\ndef handler(event, context):\n    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n    \
                  return {'ids': os.getresuid() + os.getresgid(), 'groups': os.getgroups(), 'pid': os.getpid(),\n            \
                  **{k: status[k].strip() for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')}}\n";
    daemon.deploy_python("f", source).await;
    let seen = daemon.result("f", &json!({})).await;
    let ids: Vec<u64> = seen["ids"].as_array().expect("ids").iter().filter_map(serde_json::Value::as_u64).collect();
    assert!(ids.len() == 6 && ids.iter().all(|id| *id != 0), "{seen}");
    assert!(seen["groups"].as_array().is_some_and(|groups| !groups.contains(&json!(0))), "{seen}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(seen[set], "0000000000000000", "{set}");
    }
    assert_eq!((&seen["NoNewPrivs"], &seen["Seccomp"]), (&json!("1"), &json!("2")));
    assert!(seen["pid"].as_u64().is_some_and(|pid| pid < 20), "a pid namespace of its own: {seen}");
}

#[tokio::test]
async fn each_function_runs_as_another_host_user() {
    let daemon = Daemon::start().await;
    let source = "import time\ndef handler(event, context):\n    time.sleep(2)\n";
    let mut jobs = Vec::new();
    for name in ["a", "b"] {
        daemon.deploy_python(name, source).await;
        jobs.push(daemon.submit(name, &json!({})).await);
    }
    for job in &jobs {
        daemon.wait_running(job).await;
    }
    let uid = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next().map(str::to_owned))
    };
    let mut uids: Vec<String> = daemon.footprint().sandbox_processes().iter().filter_map(uid).collect();
    let processes = uids.len();
    uids.sort();
    uids.dedup();
    assert!(uids.len() >= 2, "{processes} processes, host users {uids:?}");
    for job in &jobs {
        daemon.wait_final(job).await;
    }
}

#[tokio::test]
async fn there_is_no_network() {
    let daemon = Daemon::start().await;
    let source = "import socket\ndef handler(event, context):\n    outcome = {}\n    for host, port in event:\n        try:\n            \
                  socket.create_connection((host, port), timeout=1).close()\n            outcome[host] = 'reached'\n        \
                  except OSError as error:\n            outcome[host] = type(error).__name__\n    \
                  interfaces = [line.split(':')[0].strip() for line in open('/proc/net/dev').read().splitlines()[2:]]\n    \
                  return {'outcome': outcome, 'interfaces': interfaces}\n";
    daemon.deploy_python("f", source).await;
    let targets = json!([
        ["127.0.0.1", daemon.address().port()],
        ["169.254.169.254", 80],
        ["1.1.1.1", 53],
        ["::1", daemon.address().port()]
    ]);
    let seen = daemon.result("f", &targets).await;
    assert!(!seen["outcome"].to_string().contains("reached"), "{seen}");
    assert_eq!(seen["interfaces"], json!(["lo"]));
}

#[tokio::test]
async fn a_sandbox_s_own_loopback_works() {
    let daemon = Daemon::start().await;
    let source = "import socket\ndef handler(event, context):\n    server = socket.create_server(('127.0.0.1', 0))\n    \
                  client = socket.create_connection(server.getsockname(), timeout=2)\n    peer, _ = server.accept()\n    \
                  client.sendall(b'hello')\n    got = peer.recv(5).decode()\n    \
                  for s in (server, client, peer): s.close()\n    return got\n";
    daemon.deploy_python("f", source).await;
    assert_eq!(daemon.result("f", &json!({})).await, "hello");
}

const WRITER: &str = r#"
import os
def handler(event, context):
    outcome = {}
    for path in event:
        try:
            with open(path, 'w') as file: file.write('x')
            outcome[path] = 'written'
        except OSError as error:
            outcome[path] = type(error).__name__
    return outcome
"#;

#[tokio::test]
async fn only_tmp_and_output_can_be_written() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", WRITER).await;
    let closed = [
        "/var/task/main.py",
        "/var/task/new",
        "/new",
        "/etc/passwd",
        "/usr/new",
        "/bin/sh",
        "/proc/sys/kernel/hostname",
        "/dev/new",
    ];
    let seen = daemon.result("f", &json!(closed)).await;
    for path in closed {
        assert_ne!(seen[path], "written", "{path}");
    }
    let open = ["/tmp/new", "/output/new", "/dev/null"];
    let seen = daemon.result("f", &json!(open)).await;
    for path in open {
        assert_eq!(seen[path], "written", "{path}");
    }
    assert_eq!(daemon.result("f", &json!([])).await, json!({}));
}

#[tokio::test]
async fn tmp_is_limited_in_size() {
    let daemon = Daemon::with("LIMITS__TMP_MB", 8).start().await;
    let source = "import errno\ndef handler(event, context):\n    written = 0\n    try:\n        with open(event + '/big', 'wb', 0) as file:\n            \
                  while written < 64 << 20:\n                written += file.write(bytes(1 << 20))\n    \
                  except OSError as error:\n        return [written, error.errno == errno.ENOSPC]\n    return [written, False]\n";
    daemon.deploy_python_with("f", source, json!({ "memoryMb": 256 })).await;
    for dir in ["/tmp", "/output"] {
        let seen = daemon.result("f", &json!(dir)).await;
        assert_eq!(seen[1], true, "{dir}: {seen}");
        assert!(seen[0].as_u64().is_some_and(|written| written <= 9 << 20), "{dir}: {seen}");
    }
}

#[tokio::test]
async fn the_host_s_files_are_not_there() {
    let daemon = Daemon::start().await;
    let secret = daemon.data_dir().join("admin.key");
    let source = "import os\ndef handler(event, context):\n    outcome = {}\n    for path in event:\n        try:\n            \
                  outcome[path] = 'directory' if os.path.isdir(path) and os.listdir(path) else open(path, 'rb').read(20).hex() or 'empty'\n        \
                  except OSError as error:\n            outcome[path] = 'no: ' + type(error).__name__\n    return outcome\n";
    daemon.deploy_python("f", source).await;
    let paths = [
        secret.to_str().expect("a path").to_owned(),
        daemon.data_dir().to_str().expect("a path").to_owned(),
        "/etc/shadow".to_owned(),
        "/root/.ssh".to_owned(),
        "/home".to_owned(),
        "/root/.cargo".to_owned(),
        "/proc/kcore".to_owned(),
        "/proc/1/environ".to_owned(),
        "/proc/1/root/root".to_owned(),
        "/sys/kernel/debug".to_owned(),
        "/var/run/docker.sock".to_owned(),
        "/var/lib/faasd".to_owned(),
        "/dev/vda".to_owned(),
        "/dev/mem".to_owned(),
        env!("CARGO_MANIFEST_DIR").to_owned(),
    ];
    let seen = daemon.result("f", &json!(paths)).await;
    for path in &paths {
        let what = seen[path].as_str().unwrap_or_default();
        assert!(what.starts_with("no: ") || what == "empty", "{path}: {what}");
    }
    assert!(!seen.to_string().contains(&hex::encode(&daemon.admin_key()[..8])), "{seen}");
}

#[tokio::test]
async fn the_host_s_processes_are_not_seen() {
    let daemon = Daemon::start().await;
    let source = "import os, signal\ndef handler(event, context):\n    pids = [int(p) for p in os.listdir('/proc') if p.isdigit()]\n    \
                  names = [open(f'/proc/{p}/cmdline').read() for p in pids]\n    killed = False\n    try:\n        \
                  os.kill(event, signal.SIGTERM)\n        killed = event in pids and 'faasd' in open(f'/proc/{event}/cmdline').read()\n    \
                  except OSError:\n        pass\n    return {'pids': pids, 'names': names, 'killed': killed, 'host': os.uname().nodename}\n";
    daemon.deploy_python("f", source).await;
    let host_pid = if daemon.pid() < 100 { 99_999 } else { daemon.pid() };
    let seen = daemon.result("f", &json!(host_pid)).await;
    assert!(seen["pids"].as_array().is_some_and(|pids| pids.len() <= 4), "{seen}");
    assert_eq!(seen["killed"], false);
    assert!(!seen["names"].to_string().contains("--data-dir"), "{seen}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    assert_ne!(seen["host"].as_str(), Some(host.trim()), "a uts namespace of its own");
}
