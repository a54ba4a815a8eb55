//! A whole fleet on this machine: what stands in for AWS, a real Redis, and real `faasd` processes in the roles of controller and worker.
//! All of it ends with the value.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::Client;
use super::footprint::Footprint;
use super::partition::Partition;
use super::redis::RedisServer;
use super::slots::{Slot, UIDS_PER_DAEMON};

/// Several daemons start side by side on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// A killed daemon's launcher reads the end of its socket and ends every sandbox.
const CLEAR_LIMIT: Duration = Duration::from_secs(20);
/// A node that is stopped answers nobody.
const METRICS_LIMIT: Duration = Duration::from_secs(1);
/// Nodes that a cluster may have: each has its part of the slot's user ids.
const NODES_MAX: u32 = 8;
const UIDS_PER_NODE: u32 = UIDS_PER_DAEMON / NODES_MAX;
const LOG_LINES_SHOWN: usize = 40;
/// As long as secrets must be, and nobody's.
const FLEET_SECRET: &str = "a secret of nodes in tests, and of no others";

/// The servers that stand in for DynamoDB, S3 and SQS, in a process of their own.
pub struct Cloud {
    child: Child,
    /// Its end is the program's.
    _input: Option<ChildStdin>,
    endpoints: Value,
    queue_url: String,
}

impl Cloud {
    /// With a bucket and a queue with a dead letter queue in it.
    pub async fn start() -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_faasd")).parent().expect("a folder").join("examples/cloud");
        let mut child =
            Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("{}: {error}; `cargo build --example cloud` makes it", program.display())
            });
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line with its endpoints");
        let endpoints: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let input = child.stdin.take();
        let mut cloud = Self { child, _input: input, endpoints, queue_url: String::new() };
        cloud.at("s3").request(Method::PUT, "/artifacts").send().await;
        cloud.sqs("CreateQueue", json!({ "QueueName": "dead" })).await;
        let redrive =
            json!({ "deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": "50" });
        let attributes = json!({ "VisibilityTimeout": "30", "RedrivePolicy": redrive.to_string() });
        let made = cloud.sqs("CreateQueue", json!({ "QueueName": "jobs", "Attributes": attributes })).await;
        cloud.queue_url = made["QueueUrl"].as_str().unwrap_or_else(|| panic!("no QueueUrl in {made}")).to_owned();
        cloud
    }

    pub fn endpoint(&self, service: &str) -> &str {
        self.endpoints[service].as_str().unwrap_or_else(|| panic!("no {service} in {}", self.endpoints))
    }

    fn at(&self, service: &str) -> Client {
        let address = self.endpoint(service).trim_start_matches("http://").trim_end_matches('/');
        Client::new(address.parse().expect("an address"), String::new())
    }

    pub async fn sqs(&self, action: &str, body: Value) -> Value {
        let request = self.at("sqs").request(Method::POST, "/").header("x-amz-target", &format!("AmazonSQS.{action}"));
        let request = request.header("content-type", "application/x-amz-json-1.0").body(body.to_string());
        request.send().await.expect(200)
    }

    /// Messages of the job queue: ready, in flight, delayed.
    pub async fn jobs(&self) -> [u64; 3] {
        let asked = json!({ "QueueUrl": self.queue_url, "AttributeNames": ["All"] });
        let answer = self.sqs("GetQueueAttributes", asked).await;
        let count =
            |name: &str| answer["Attributes"][name].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        [
            count("ApproximateNumberOfMessages"),
            count("ApproximateNumberOfMessagesNotVisible"),
            count("ApproximateNumberOfMessagesDelayed"),
        ]
    }

    /// From now on a share of all requests fails or stalls, by this seed.
    pub async fn fault(&self, faults: &Value) {
        // S3's other paths are buckets.
        for (service, path) in [("dynamodb", "/faults"), ("s3", "/-/faults"), ("sqs", "/faults")] {
            let answer = self.at(service).request(Method::PUT, path).json(faults).send().await;
            assert_eq!(answer.status / 100, 2, "{service}: {}", answer.text());
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One daemon of the fleet.
pub struct Node {
    pub name: String,
    role: &'static str,
    child: Option<Child>,
    footprint: Footprint,
    settings: Vec<(String, String)>,
    /// The namespace that it lives in, if not this one: what starts programs there, and the address that they listen at.
    inside: Option<(Vec<String>, std::net::Ipv4Addr)>,
}

impl Node {
    pub fn data_dir(&self) -> PathBuf {
        self.footprint.home.join("data")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.footprint.home.join("log")).unwrap_or_default()
    }

    pub fn is_controller(&self) -> bool {
        self.role == "controller"
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it has come as far as to listen.
    pub fn is_up(&self) -> bool {
        self.is_running() && self.address().is_some()
    }

    /// Figures of this node, as text; `None`: it does not answer.
    pub async fn metrics(&self) -> Option<String> {
        let asked = Client::new(self.address()?, String::new()).get("/metrics").try_send();
        let answer = tokio::time::timeout(METRICS_LIMIT, asked).await.ok()?.ok()?;
        (answer.status == 200).then(|| answer.text())
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("the node runs").id() as i32
    }

    pub fn address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.data_dir().join("address")).ok()?.trim().parse().ok()
    }

    fn spawn(&mut self) {
        let _ = fs::remove_file(self.data_dir().join("address"));
        let log = File::options().create(true).append(true).open(self.footprint.home.join("log")).expect("a log file");
        let at = self.inside.as_ref().map_or(std::net::Ipv4Addr::LOCALHOST, |(_, address)| *address);
        let mut words: Vec<String> = self.inside.as_ref().map(|(by, _)| by.clone()).unwrap_or_default();
        words.push(env!("CARGO_BIN_EXE_faasd").to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--role", self.role, "--listen", &format!("{at}:0"), "--isolation", "auto", "--data-dir"])
            .arg(self.data_dir())
            .current_dir(&self.footprint.home)
            .env("TMPDIR", self.footprint.temp_dir())
            .env("FAASD_SANDBOX__CGROUP_PREFIX", &self.footprint.cgroup_prefix)
            .env("FAASD_SANDBOX__UID_FIRST", self.footprint.uid_first.to_string())
            .env("FAASD_SANDBOX__UID_COUNT", UIDS_PER_NODE.to_string())
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the daemon's executable starts"));
    }

    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("the node can be killed");
        child.wait().expect("the node can be waited for");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the node can be signalled");
    }

    /// Asks it to end; its exit code.
    pub async fn sigterm(&mut self, limit: Duration) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.ended(limit).await
    }

    /// Waits until it has ended after it was asked to; its exit code.
    pub async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let since = Instant::now();
        loop {
            let child = self.child.as_mut().expect("the node runs");
            if let Some(status) = child.try_wait().expect("the node can be waited for") {
                self.child = None;
                return status.code();
            }
            assert!(since.elapsed() < limit, "{} still runs {limit:?} after SIGTERM:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it answers that it is ready, at the address it says.
    async fn is_ready(&mut self) -> bool {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().expect("it can be waited for")) {
            self.child = None;
            panic!("{} ended instead of starting: {status}\n{}", self.name, self.log());
        }
        let Some(address) = self.address() else { return false };
        let asked = Client::new(address, String::new()).get("/ready").try_send().await;
        asked.is_ok_and(|answer| answer.status == 200)
    }

    async fn wait_until_ready(&mut self) {
        let since = Instant::now();
        while !self.is_ready().await {
            assert!(since.elapsed() < START_LIMIT, "{} is not ready after {START_LIMIT:?}:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a test's fleet is made of, and how its nodes differ from the default.
pub struct Builder {
    controllers: u32,
    workers: u32,
    both: u32,
    settings: Vec<(String, String)>,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub redis: Option<RedisServer>,
    pub cloud: Cloud,
    slot: Slot,
    settings: Vec<(String, String)>,
    admin_key: String,
    home: tempfile::TempDir,
}

impl Builder {
    /// And so many nodes that are both, which others may call.
    pub fn and_both(mut self, both: u32) -> Self {
        assert!(self.controllers + self.workers + both <= NODES_MAX);
        self.both = both;
        self
    }

    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((format!("FAASD_{key}"), value.to_string()));
        self
    }

    /// A variable of the environment that is no key of the configuration.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub async fn start(self) -> Cluster {
        assert!(nix::unistd::geteuid().is_root(), "needs root, to make real sandboxes: run `make test` as root");
        let slot = Slot::take();
        let home = tempfile::Builder::new().prefix("faasd-test-").tempdir().expect("a temporary directory");
        let cloud = Cloud::start().await;
        let redis = Some(RedisServer::start());
        let mut settings: Vec<(String, String)> = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL_DYNAMODB", cloud.endpoint("dynamodb")),
            ("AWS_ENDPOINT_URL_S3", cloud.endpoint("s3")),
            ("AWS_ENDPOINT_URL_SQS", cloud.endpoint("sqs")),
            ("FAASD_BACKEND", "aws"),
            ("FAASD_AWS__BUCKET", "artifacts"),
            ("FAASD_AWS__QUEUE_URL", &cloud.queue_url),
            ("FAASD_FLEET__SECRET", FLEET_SECRET),
            ("FAASD_SECRETS__KEY", &"5e".repeat(32)),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        if let Some(redis) = &redis {
            settings.push(("FAASD_REDIS__URL".to_owned(), redis.url()));
        }
        settings.extend(self.settings);
        let made = Command::new(env!("CARGO_BIN_EXE_faasd"))
            .args(["admin", "create-tables"])
            .envs(settings.iter().map(|(key, value)| (key, value)))
            .output()
            .expect("the executable starts");
        assert!(
            made.status.success(),
            "{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        let mut cluster = Cluster { nodes: Vec::new(), redis, cloud, slot, settings, admin_key: String::new(), home };
        let of = |role: &'static str, count: u32| (0..count).map(move |n| (role, n));
        let roles = of("controller", self.controllers).chain(of("worker", self.workers)).chain(of("both", self.both));
        for (role, n) in roles {
            cluster.add(role, &format!("{role}-{n}"));
        }
        for node in &mut cluster.nodes {
            node.spawn();
        }
        for node in &mut cluster.nodes {
            node.wait_until_ready().await;
        }
        let keys = cluster.nodes.iter().filter_map(|node| fs::read_to_string(node.data_dir().join("admin.key")).ok());
        let keys: Vec<String> = keys.map(|key| key.trim().to_owned()).collect();
        if self.controllers > 0 {
            assert_eq!(keys.len(), 1, "one admin key for the whole fleet, made by one controller");
            cluster.admin_key.clone_from(&keys[0]);
        }
        cluster
    }
}

impl Cluster {
    pub fn of(controllers: u32, workers: u32) -> Builder {
        assert!(controllers + workers <= NODES_MAX);
        Builder { controllers, workers, both: 0, settings: Vec::new() }
    }

    fn add(&mut self, role: &'static str, name: &str) {
        let home = self.home.path().join(name);
        let footprint = Footprint {
            // Short, and with no digit at its end: names of groups are told apart by what follows.
            cgroup_prefix: format!("{}-{}", self.slot.cgroup_prefix, char::from(b'a' + self.nodes.len() as u8)),
            uid_first: self.slot.uid_first + self.nodes.len() as u32 * UIDS_PER_NODE,
            uid_count: UIDS_PER_NODE,
            home,
        };
        fs::create_dir(&footprint.home).expect("a directory for the node");
        fs::create_dir(footprint.temp_dir()).expect("a directory for the node's temporary files");
        let mut settings = self.settings();
        if role == "both" {
            settings.push(("FAASD_FLEET__LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
        }
        self.nodes.push(Node { name: name.to_owned(), role, child: None, footprint, settings, inside: None });
    }

    /// One more worker, ready when this returns.
    pub async fn add_worker(&mut self, name: &str) {
        self.add_node("worker", name).await;
    }

    /// One more node in this role, ready when this returns.
    pub async fn add_node(&mut self, role: &'static str, name: &str) {
        self.add(role, name);
        self.restart(name).await;
    }

    /// The environment that makes a process one of this fleet's.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// One more controller, which is told this beside what all are; ready when this returns.
    pub async fn add_controller(&mut self, name: &str, environment: &[(&str, &str)]) {
        self.add_controller_unready(name, environment);
        self.node(name).wait_until_ready().await;
    }

    /// The same, which is not waited for.
    pub fn add_controller_unready(&mut self, name: &str, environment: &[(&str, &str)]) {
        self.add("controller", name);
        let more = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.node(name).settings.extend(more);
        self.respawn(name);
    }

    /// One more worker behind a cable that can be pulled.
    pub async fn add_worker_inside(&mut self, name: &str, partition: &mut Partition) {
        self.add("worker", name);
        let mut settings = self.settings.clone();
        for (_, value) in settings.iter_mut().filter(|(_, value)| value.contains("://127.0.0.1:")) {
            *value = partition.way_to(value).await;
        }
        let node = self.node(name);
        node.settings = settings;
        node.inside = Some((partition.prefix(), partition.inside()));
        self.restart(name).await;
    }

    pub fn admin_key(&self) -> &str {
        &self.admin_key
    }

    /// The admin's client of the controller with this number.
    pub fn controller(&self, n: usize) -> Client {
        let node = self.nodes.iter().filter(|node| node.is_controller()).nth(n).expect("a controller with this number");
        Client::new(node.address().expect("a controller that listens"), self.admin_key.clone())
    }

    /// The admin's client of the node of this name, which has an API.
    pub fn client(&mut self, name: &str) -> Client {
        let address = self.node(name).address().expect("a node that listens");
        Client::new(address, self.admin_key.clone())
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("a node of this name")
    }

    /// Addresses of the controllers that listen now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().filter(|node| node.is_controller()).filter_map(Node::address).collect()
    }

    /// Starts a node again over its data directory, and waits until it is ready.
    pub async fn restart(&mut self, name: &str) {
        let node = self.node(name);
        node.kill9();
        node.spawn();
        node.wait_until_ready().await;
    }

    /// Starts a node again and does not wait.
    pub fn respawn(&mut self, name: &str) {
        let node = self.node(name);
        node.kill9();
        node.spawn();
    }

    pub async fn wait_until_ready(&mut self) {
        for node in &mut self.nodes {
            node.wait_until_ready().await;
        }
    }

    /// Ends every node in order, and fails if one leaves anything on the machine.
    pub async fn stop(&mut self, limit: Duration) {
        for node in &mut self.nodes {
            if node.is_running() {
                assert_eq!(node.sigterm(limit).await, Some(0), "{}:\n{}", node.name, node.log());
            }
        }
        for node in &self.nodes {
            node.footprint.assert_nothing_remains(CLEAR_LIMIT);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill9();
        }
        for node in &self.nodes {
            if std::thread::panicking() {
                let log = node.log();
                let lines: Vec<&str> = log.lines().collect();
                let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
                eprintln!("--- the last {} lines of {} ---\n{}", shown.len(), node.name, shown.join("\n"));
            }
            let since = Instant::now();
            while !node.footprint.processes().is_empty() && since.elapsed() < CLEAR_LIMIT {
                std::thread::sleep(Duration::from_millis(10));
            }
            for pid in node.footprint.processes() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            node.footprint.clear();
        }
    }
}
