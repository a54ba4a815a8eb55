//! How the platform is: health, readiness, workers, status, metrics.

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

#[tokio::test]
async fn health_readiness_and_front_page_answer() {
    let daemon = Daemon::start().await;
    let health = daemon.without_key().get("/health").send().await;
    assert!(health.expect(200).is_object());
    let ready = daemon.without_key().get("/ready").send().await;
    let text = ready.expect(200).to_string();
    assert!(text.contains("latency"), "each dependency with its latency: {text}");
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
    let workers = daemon.get("/workers").send().await.expect(200);
    let workers = workers["items"].as_array().expect("items").clone();
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
