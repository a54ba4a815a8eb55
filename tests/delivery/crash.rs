//! The daemon dies or is told to end: nothing accepted is lost, nothing is left behind.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, is_final};

const JOBS: usize = 200;
const SWEEP_LIMIT: Duration = Duration::from_secs(15);

async fn submit_all(daemon: &Daemon, jobs: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(jobs);
    for i in 0..jobs {
        ids.push(daemon.submit("work", &json!({ "i": i })).await);
    }
    ids
}

#[tokio::test]
async fn kill_9_with_two_hundred_accepted_jobs_loses_none_and_leaves_nothing() {
    // Fewer at once than there are jobs, so that some still wait when the daemon dies.
    let mut daemon = Daemon::with("QUEUE__VISIBILITY_S", 3)
        .set("QUEUE__BACKOFF_MS", 100)
        .set("POOL__CONCURRENCY_MAX", 16)
        .start()
        .await;
    let source = "import time\ndef handler(event, context):\n    time.sleep(0.3)\n    return event['i']\n";
    daemon.deploy_python("work", source).await;
    let ids = submit_all(&daemon, JOBS).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut at_death: HashMap<String, u32> = HashMap::new();
    for id in &ids {
        let status = daemon.status(id).await["status"].as_str().expect("a status").to_owned();
        *at_death.entry(status).or_default() += 1;
    }
    assert!(at_death.contains_key("QUEUED") && at_death.contains_key("RUNNING"), "{at_death:?}");
    let old_sandboxes = daemon.footprint().sandbox_processes();
    let old_groups = daemon.footprint().cgroups();
    assert!(!old_sandboxes.is_empty() && !old_groups.is_empty());

    daemon.kill9();
    daemon.restart().await;
    let now = daemon.footprint().sandbox_processes();
    assert!(old_sandboxes.iter().all(|pid| !now.contains(pid)), "sandboxes of the old run live on");

    for (i, id) in ids.iter().enumerate() {
        let record = daemon.wait_final(id).await;
        assert_eq!((&record["status"], &record["result"]), (&json!("SUCCESS"), &json!(i)), "{record}");
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    for record in daemon.list_all("/functions/work/logs", 100).await {
        *seen.entry(record["requestId"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    assert_eq!(seen.len(), JOBS);
    assert!(seen.values().all(|count| *count == 1), "exactly one final record each");
    let dead = daemon.list_all("/dead-letters", 100).await;
    assert_eq!(dead.len(), 0, "{dead:?}");

    let (status, _) = daemon.sigterm(Duration::from_secs(40)).await;
    assert_eq!(status.code(), Some(0));
    daemon.footprint().assert_nothing_remains(SWEEP_LIMIT);
}

/// A worker that was killed mid-call doesn't use up the function's attempts for nothing: every one is tried again.
#[tokio::test]
async fn kill_9_again_and_again_still_ends_every_job_once() {
    let mut daemon = Daemon::with("QUEUE__VISIBILITY_S", 2)
        .set("QUEUE__ATTEMPTS_MAX", 10)
        .set("QUEUE__BACKOFF_MS", 50)
        .start()
        .await;
    let source = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return event['i']\n";
    daemon.deploy_python("work", source).await;
    let ids = submit_all(&daemon, 60).await;
    for pause in [50, 400, 900] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        daemon.kill9();
        daemon.restart().await;
    }
    for (i, id) in ids.iter().enumerate() {
        let record = daemon.wait_final(id).await;
        assert_eq!(record["result"], json!(i), "{record}");
    }
}

#[tokio::test]
async fn a_daemon_killed_alone_takes_its_sandboxes_along() {
    let mut daemon = Daemon::start().await;
    daemon.deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(60)\n").await;
    let job = daemon.submit("f", &json!({})).await;
    daemon.wait_running(&job).await;
    assert!(!daemon.footprint().sandbox_processes().is_empty());
    daemon.kill9();
    for _ in 0..500 {
        if daemon.footprint().processes().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still there: {:?}", daemon.footprint().remains());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_stops_intake_finishes_what_runs_and_exits_0() {
    let mut daemon = Daemon::with("SHUTDOWN__DRAIN_MS", 20_000).start().await;
    daemon
        .deploy_python(
            "slow",
            "import time\ndef handler(event, context):\n    time.sleep(1.5)\n    return 'finished'\n",
        )
        .await;
    daemon.deploy_python("quick", ECHO).await;
    daemon.call("slow", &json!({})).await;

    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = (*daemon).clone();
        callers.spawn(async move {
            let mut refused_or_cut = 0;
            let mut done = 0;
            while refused_or_cut == 0 {
                match client.run("quick", &json!(1)).try_send().await {
                    Ok(answer) if answer.status == 200 => done += 1,
                    Ok(answer) => {
                        assert_eq!(answer.status, 503, "{}", answer.text());
                        assert!(answer.header("retry-after").is_some());
                        refused_or_cut += 1;
                    }
                    Err(_) => refused_or_cut += 1,
                }
            }
            done
        });
    }
    let running: Vec<_> = (0..4).map(|_| tokio::spawn(daemon.run("slow", &json!({})).try_send())).collect();
    let accepted = daemon.submit("slow", &json!({})).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (status, took) = daemon.sigterm(Duration::from_secs(25)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(took < Duration::from_secs(20), "{took:?}");
    for call in running {
        let answer = call.await.expect("no panic").expect("a running call is answered");
        assert_eq!(answer.expect(200)["result"], "finished");
    }
    let mut done = 0;
    while let Some(count) = callers.join_next().await {
        done += count.expect("calls are answered or refused properly");
    }
    assert!(done > 0, "there was load");
    daemon.footprint().assert_nothing_remains(SWEEP_LIMIT);

    daemon.restart().await;
    let record = daemon.wait_final(&accepted).await;
    assert_eq!(record["result"], "finished", "what was accepted is finished before or after: {record}");
    let ours: Vec<Value> = daemon.list_all("/logs", 500).await;
    assert!(ours.iter().all(is_final), "no record is left in the middle");
}

#[tokio::test]
async fn what_runs_beyond_the_drain_time_is_ended_or_given_back() {
    let mut daemon = Daemon::with("SHUTDOWN__DRAIN_MS", 1000)
        .set("SANDBOX__GRACE_MS", 300)
        .set("QUEUE__BACKOFF_MS", 50)
        .start()
        .await;
    let source = "import os, time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return 'done'\n";
    daemon.deploy_python("f", source).await;
    let job = daemon.submit("f", &json!({ "s": 6 })).await;
    daemon.wait_running(&job).await;
    let (status, took) = daemon.sigterm(Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert!(took < Duration::from_secs(8), "{took:?}");
    daemon.footprint().assert_nothing_remains(SWEEP_LIMIT);
    daemon.restart().await;
    let record = daemon.wait_final(&job).await;
    assert_eq!(record["result"], "done", "{record}");
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut daemon = Daemon::with("SHUTDOWN__DRAIN_MS", 30_000).start().await;
    daemon.deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(25)\n").await;
    let job = daemon.submit("f", &json!({})).await;
    daemon.wait_running(&job).await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, took) = daemon.sigterm(Duration::from_secs(10)).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    daemon.footprint().assert_nothing_remains(SWEEP_LIMIT);
}

#[tokio::test]
async fn a_restart_keeps_functions_records_and_keys() {
    let mut daemon = Daemon::start().await;
    let source = "import os\ndef handler(event, context):\n    return [event, os.environ['A']]\n";
    let function = daemon.deploy_python_with("f", source, json!({ "env": { "A": "kept" } })).await;
    let admin_key = daemon.admin_key();
    let (_, secret) = daemon.create_key("ann", &["read"]).await;
    let job = daemon.submit("f", &json!(1)).await;
    let before = daemon.wait_final(&job).await;
    let replayed = daemon.run("f", &json!(2)).header("x-async", "true").header("idempotency-key", "k").send().await;
    let replayed = crate::support::platform::accepted(&replayed);
    for graceful in [true, false] {
        if graceful {
            daemon.sigterm(Duration::from_secs(40)).await;
        }
        daemon.restart().await;
        assert_eq!(daemon.admin_key(), admin_key);
        assert_eq!(daemon.status(&job).await, before);
        daemon.as_key(&secret).get("/functions").send().await.expect(200);
        let shown = daemon.get("/functions/f").send().await.expect(200);
        assert_eq!((&shown["functionId"], &shown["version"]), (&json!(function.id), &json!(1)));
        assert_eq!(daemon.result("f", &json!(3)).await, json!([3, "kept"]));
        let again = daemon.run("f", &json!(2)).header("x-async", "true").header("idempotency-key", "k").send().await;
        assert_eq!(crate::support::platform::accepted(&again), replayed, "the key is remembered");
    }
}

/// Nothing was promised to a synchronous caller whose daemon died; but what its key left in the store comes to an end, and the
/// key is good for another try.
#[tokio::test]
async fn a_keyed_call_cut_off_by_kill_9_is_ended_at_the_next_start_and_may_be_sent_again() {
    let mut daemon = Daemon::start().await;
    daemon
        .deploy_python("f", "import time\ndef handler(event, context):\n    time.sleep(event['s'])\n    return 1\n")
        .await;
    let call = daemon.run("f", &json!({ "s": 1.5 })).header("idempotency-key", "k");
    let cut_off = tokio::spawn(call.try_send());
    let open = loop {
        let open = daemon.list_all("/logs?status=QUEUED", 10).await;
        if !open.is_empty() {
            break open;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    daemon.restart().await;
    assert!(cut_off.await.expect("no panic").is_err(), "the connection died with the daemon");

    let id = open[0]["requestId"].as_str().expect("an id");
    let ended = daemon.status(id).await;
    assert_eq!((&ended["status"], &ended["errorType"]), (&json!("FAILED"), &json!("PlatformError")), "{ended}");
    for status in ["QUEUED", "RUNNING"] {
        assert_eq!(daemon.list_all(&format!("/logs?status={status}"), 10).await.len(), 0, "{status}");
    }
    let again = daemon.run("f", &json!({ "s": 1.5 })).header("idempotency-key", "k").send().await.expect(200);
    assert_eq!(again["status"], "SUCCESS", "{again}");
    assert_ne!(again["requestId"], id);
}

/// Two daemons over one data directory would both run every job.
#[tokio::test]
async fn a_data_directory_serves_one_daemon_at_a_time() {
    let daemon = Daemon::start().await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_faasd"))
        .args(["--role", "both", "--listen", "127.0.0.1:0", "--isolation", "auto", "--data-dir"])
        .arg(daemon.data_dir())
        .env("FAASD_SANDBOX__CGROUP_PREFIX", format!("{}-second", daemon.footprint().cgroup_prefix))
        .env("FAASD_SANDBOX__UID_FIRST", daemon.footprint().uid_first.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the executable starts");
    let mut second = KillOnDrop(second);
    for _ in 0..300 {
        if let Some(status) = second.0.try_wait().expect("it can be waited for") {
            assert!(!status.success(), "it refuses");
            assert_eq!(daemon.get("/health").send().await.status, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a second daemon runs over the same data directory");
}

struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
