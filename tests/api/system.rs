//! How the platform is: health, readiness, workers, status, metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

#[tokio::test]
async fn health_readiness_and_front_page_answer() {
    let daemon = Daemon::start().await;
    let health = daemon.without_key().get("/health").send().await;
    assert!(health.expect(200).is_object());
    let ready = daemon.without_key().get("/ready").send().await;
    let ready = ready.expect(200);
    for name in ["store", "queue", "executor"] {
        let dependency = &ready["dependencies"][name];
        assert!(dependency["status"] == "up" && dependency["latencyMs"].is_number(), "{name}: {ready}");
    }
    let front = daemon.without_key().get("/").send().await;
    assert!(front.text().contains("faasd"), "{}", front.text());
    for path in ["/", "/health", "/ready", "/metrics", "/functions", "/nowhere"] {
        assert!(daemon.get(path).send().await.header("x-request-id").is_some(), "{path}");
    }
}

#[tokio::test]
async fn the_worker_and_its_pools_are_shown() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("sleeper", "import time\ndef handler(event, context):\n    time.sleep(2)\n").await;
    let job = daemon.submit("sleeper", &json!({})).await;
    let running = daemon.wait_running(&job).await;
    // RUNNING begins with the search for a sandbox, so the call may not be in one yet.
    let workers = loop {
        let workers = daemon.get("/workers").send().await.expect(200);
        let workers = workers["items"].as_array().expect("items").clone();
        if workers[0]["active"] == 1 {
            break workers;
        }
        assert_eq!(daemon.status(&job).await["status"], "RUNNING", "{workers:?}");
    };
    assert_eq!(workers.len(), 1);
    let worker = &workers[0];
    assert_eq!(worker["id"], running["workerId"]);
    assert_eq!(worker["state"], "ACTIVE");
    assert_eq!(worker["active"], 1);
    assert!(worker["capacity"].as_u64().is_some_and(|capacity| capacity > 0), "{worker}");
    assert!(worker["load"].as_f64().is_some_and(|load| load > 0.0 && load <= 1.0), "{worker}");
    assert_eq!(worker["pools"]["python"]["busy"], 1, "{worker}");
    assert!(worker["lastSeen"].is_string() && worker["address"].is_string(), "{worker}");
    let status = daemon.get("/system/status").send().await.expect(200);
    assert!(status.is_object() && status.to_string().contains("queue"), "{status}");
    daemon.wait_final(&job).await;
}

#[tokio::test]
async fn metrics_count_calls_by_function_and_outcome() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("good", ECHO).await;
    daemon.deploy_python("bad", "def handler(event, context):\n    raise ValueError('x')\n").await;
    for _ in 0..5 {
        daemon.call("good", &json!(1)).await;
    }
    for _ in 0..3 {
        daemon.call("bad", &json!(1)).await;
    }
    let samples = daemon.metrics().await;
    for line in samples.0.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("faasd_"), "not named as agreed: {line}");
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
    for (function, status, expected) in [("good", "SUCCESS", 5.0), ("bad", "FAILED", 3.0), ("bad", "SUCCESS", 0.0)] {
        assert_eq!(daemon.counted(function, status).await, expected, "{function} {status}:\n{}", samples.0);
    }
}

/// Type and label names.
type Described = (String, BTreeSet<String>);

/// The page's tables: name, type and labels of each row.
fn documented() -> BTreeMap<String, Described> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `faasd_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(!cells[4].is_empty() && !cells[5].is_empty(), "no unit or no meaning: {row}");
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

/// The same, of what a daemon shows; a histogram's `le` is its form and not a label.
fn shown(text: &str) -> BTreeMap<String, Described> {
    let mut shown = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            current = name.to_owned();
            shown.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let names = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',', '{']).next());
            let names = names.filter(|name| !name.is_empty() && !["le"].contains(name) && !name.contains('}'));
            shown.get_mut(&current).expect("a TYPE line comes first").1.extend(names.map(str::to_owned));
        }
    }
    shown
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_exists() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", ECHO).await;
    daemon.call("f", &json!(1)).await;
    let job = daemon.submit("f", &json!(1)).await;
    daemon.wait_final(&job).await;
    daemon.get("/functions/absent").send().await.refused(404);
    let (documented, shown) = (documented(), shown(&daemon.metrics().await.0));
    for (name, of) in &shown {
        assert_eq!(Some(of), documented.get(name), "{name}: what is shown, and what docs/metrics.md says");
    }
    // A series with labels that had no event yet is not shown: its name must at least be in the code.
    let code = [
        include_str!("../../src/controller/metrics.rs"),
        include_str!("../../src/worker/metrics.rs"),
        include_str!("../../src/fleet/metrics.rs"),
        include_str!("../../src/fleet/address_metrics.rs"),
        include_str!("../../src/node/disk.rs"),
        include_str!("../../src/adapters/embedded/metrics.rs"),
        include_str!("../../src/adapters/redis/metrics.rs"),
        include_str!("../../src/adapters/aws/sqs/metrics.rs"),
        include_str!("../../src/adapters/aws/logs.rs"),
        include_str!("../../src/adapters/aws/dynamodb/metrics.rs"),
        include_str!("../../src/sandbox/seccomp/listener.rs"),
        include_str!("../../src/node/metrics.rs"),
    ]
    .concat();
    for name in documented.keys().filter(|name| !shown.contains_key(*name)) {
        let short = name.strip_prefix("faasd_controller_").unwrap_or(name);
        assert!(code.contains(&format!("\"{short}\"")), "{name} is documented and does not exist");
    }
    assert!(shown.len() > 45, "only {} metrics: {shown:?}", shown.len());
}
