//! Several servers that are one: a cluster of three, and a master with its replica and who watches them.

use std::time::{Duration, Instant};

use super::{Builder, RedisServer, START_LIMIT, ask, free_port, write};

const SLOTS: u32 = 16_384;
const NODES: u32 = 3;

/// Three masters without replicas.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    pub fn start() -> Self {
        let nodes: Vec<RedisServer> = (0..NODES)
            .map(|_| {
                let bus = free_port().to_string();
                Builder::default().with(&["--cluster-enabled", "yes", "--cluster-port", &bus]).start()
            })
            .collect();
        let ids: Vec<String> = nodes.iter().map(|node| node.ask(&["CLUSTER", "MYID"])).collect();
        for (n, node) in (0..NODES).zip(&nodes) {
            let (first, last) = (n * SLOTS / NODES, (n + 1) * SLOTS / NODES - 1);
            expect_ok(node, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            expect_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
        }
        for node in &nodes[1..] {
            let bus = node.builder.arguments.last().expect("its cluster port").clone();
            expect_ok(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus]);
        }
        let cluster = Self { nodes };
        wait("the cluster", || {
            cluster.nodes.iter().all(|node| {
                let known = node.ask(&["CLUSTER", "NODES"]);
                node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok") && ids.iter().all(|id| known.contains(id))
            })
        });
        cluster
    }

    pub fn url(&self) -> String {
        let others: Vec<String> = self.nodes[1..].iter().map(|node| format!("node=127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", self.nodes[0].port, others.join("&"))
    }
}

/// A master, its replica, and a sentinel that is sure of itself.
pub struct Sentinel {
    pub master: RedisServer,
    pub replica: RedisServer,
    sentinel: RedisServer,
}

const NAME: &str = "fleet";

impl Sentinel {
    pub fn start() -> Self {
        let master = RedisServer::start();
        let replica = Builder::default().with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).start();
        wait("the replica", || replica.ask(&["INFO", "replication"]).contains("master_link_status:up"));
        let builder = Builder::default().sentinel();
        let dir = tempfile::Builder::new().prefix("faasd-redis-").tempdir().expect("a temporary directory");
        let mut sentinel = RedisServer { child: None, builder, port: free_port(), dir };
        write(
            sentinel.dir.path(),
            "sentinel.conf",
            &format!(
                "sentinel monitor {NAME} 127.0.0.1 {} 1\nsentinel down-after-milliseconds {NAME} 500\n\
                 sentinel failover-timeout {NAME} 5000\n",
                master.port
            ),
        );
        assert!(sentinel.spawn(), "the sentinel does not start:\n{}", sentinel.log());
        let group = Self { master, replica, sentinel };
        // It learns of the replica from the master.
        wait("the sentinel", || {
            group.sentinel.ask(&["SENTINEL", "REPLICAS", NAME]).contains(&group.replica.port.to_string())
        });
        group
    }

    pub fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName={NAME}", self.sentinel.port)
    }

    /// Kills the master and waits until its replica has its place.
    pub fn fail_over(&mut self) {
        self.master.kill9();
        wait("the failover", || ask(self.replica.port, &["ROLE"]).starts_with("master"));
    }
}

fn expect_ok(node: &RedisServer, words: &[&str]) {
    assert_eq!(node.ask(words), "+OK", "{words:?}");
}

fn wait(for_what: &str, mut is_there: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_there() {
        assert!(since.elapsed() < START_LIMIT, "{for_what} is not ready after {START_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
