//! The metrics as those read them who are not us: `promtool`, and a Prometheus that scrapes a daemon.
//!
//! Both programs are needed: `scripts/install-test-deps.sh` installs them. Where they are missing these tests fail.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::platform::ECHO;

/// A machine that runs other tests beside may take this long to start Prometheus and to scrape twice.
const SCRAPE_LIMIT: Duration = Duration::from_secs(60);
/// Another process may take a free port between our look and its use.
const PORT_TRIES: usize = 5;
const TOKEN: &str = "a-token-for-the-scraper";

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts: run scripts/install-test-deps.sh");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

/// A daemon of which most metrics have something to tell.
async fn busy_daemon() -> Daemon {
    let daemon = Daemon::with("HTTP__METRICS_TOKEN", TOKEN).set("METRICS__SAMPLE_MS", 100).start().await;
    daemon.deploy_python("good", ECHO).await;
    daemon.deploy_python("bad", "def handler(event, context):\n    raise ValueError('x')\n").await;
    for function in ["good", "bad"] {
        daemon.call(function, &json!(1)).await;
    }
    let job = daemon.submit("good", &json!(1)).await;
    daemon.wait_final(&job).await;
    daemon.get("/functions/absent").send().await.refused(404);
    daemon
}

#[tokio::test]
async fn promtool_has_nothing_to_complain_about() {
    let daemon = busy_daemon().await;
    let samples = daemon.metrics().await;
    let checked = promtool(&["check", "metrics"], &samples.0);
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.trim().is_empty(), "promtool: {said}\n{}", samples.0);
}

/// So that the test above can fail.
#[test]
fn promtool_complains_about_bad_names() {
    let checked = promtool(&["check", "metrics"], "# TYPE requests_ms_total gauge\nrequests_ms_total 1\n");
    assert!(!checked.status.success());
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    for arguments in [["check", "rules", "config/alerts.yaml"], ["test", "rules", "tests/api/alerts.yaml"]] {
        let checked = promtool(&arguments, "");
        let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{arguments:?}: {said}");
    }
    let documented = include_str!("../../docs/metrics.md");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = include_str!("../../config/alerts.yaml").split(|c| !is_part(c));
    let used: Vec<&str> = words.filter(|word| word.starts_with("faasd_")).collect();
    assert!(used.len() > 8, "{used:?}");
    for name in used {
        let name = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is in the alerts and not in docs/metrics.md");
    }
}

/// A Prometheus of the test's own, ended with the value.
struct Prometheus {
    child: Child,
    client: Client,
    home: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes `target` once a second.
    async fn start(target: SocketAddr) -> Self {
        for _ in 0..PORT_TRIES {
            if let Some(started) = Self::try_start(target).await {
                return started;
            }
        }
        panic!("prometheus does not start on any of {PORT_TRIES} free ports");
    }

    async fn try_start(target: SocketAddr) -> Option<Self> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let rules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yaml");
        let configuration = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "faasd",
                "authorization": { "credentials": TOKEN },
                "static_configs": [{ "targets": [target.to_string()] }],
            }],
        });
        // JSON is YAML.
        std::fs::write(home.path().join("prometheus.yml"), configuration.to_string()).expect("a configuration");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let log = std::fs::File::create(home.path().join("log")).expect("a file for its log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts: run scripts/install-test-deps.sh");
        let mut started = Self { child, client: Client::new(address, "none".to_owned()), home };
        let since = Instant::now();
        loop {
            if started.client.get("/-/ready").try_send().await.is_ok_and(|answer| answer.status == 200) {
                return Some(started);
            }
            if started.child.try_wait().expect("it can be waited for").is_some() {
                let log = read(&started.home.path().join("log"));
                assert!(log.contains("address already in use"), "prometheus ended: {log}");
                return None;
            }
            assert!(since.elapsed() < SCRAPE_LIMIT, "{}", read(&started.home.path().join("log")));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(path).send().await;
        serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()))
    }

    /// Values of the series that a query finds, with their labels.
    async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let answer = self.get(&format!("/api/v1/query?query={query}")).await;
        let found = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}")).clone();
        let value = |series: &Value| series["value"][1].as_str().and_then(|value| value.parse().ok());
        found.iter().map(|series| (series["metric"].clone(), value(series).expect("a number"))).collect()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_prometheus_scrapes_a_daemon() {
    let daemon = busy_daemon().await;
    let prometheus = Prometheus::start(daemon.address()).await;
    let since = Instant::now();
    loop {
        let up = prometheus.query("up").await;
        if up.first().is_some_and(|(_, up)| *up == 1.0) {
            break;
        }
        let targets = prometheus.get("/api/v1/targets").await;
        assert!(since.elapsed() < SCRAPE_LIMIT, "not scraped: {targets}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = prometheus.query("sum(faasd_worker_invocations_total)by(function,status)").await;
    for (function, status) in [("good", "SUCCESS"), ("bad", "FAILED")] {
        let found = calls.iter().find(|(labels, _)| labels["function"] == function && labels["status"] == status);
        assert!(found.is_some_and(|(_, calls)| *calls >= 1.0), "{function} {status}: {calls:?}");
    }
    // The synchronous call and the job of `good`, and the call of `bad`.
    for (query, least) in [
        ("sum(faasd_worker_start_seconds_count)", 3.0),
        ("sum(faasd_worker_sandboxes)", 1.0),
        ("faasd_process_resident_memory_bytes", 1e6),
        ("faasd_process_open_fds", 10.0),
        ("time()-faasd_process_start_time_seconds", 0.0),
        ("histogram_quantile(0.99,sum(faasd_controller_http_request_duration_seconds_bucket)by(le))", 1e-6),
    ] {
        let found = prometheus.query(query).await;
        assert!(found.len() == 1 && found[0].1 >= least, "{query}: {found:?}");
    }
    let rules = prometheus.get("/api/v1/rules").await;
    let groups = rules["data"]["groups"].as_array().expect("groups of rules").clone();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(rules.len() > 5 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}
