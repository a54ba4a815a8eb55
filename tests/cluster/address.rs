//! The fleet's Elastic IP: two controllers want it, one has it, and the other takes it over when that one dies, hangs, drains or loses it.
//!
//! The address is the emulator's, the metadata of each instance a server of the test's own, the lease an item in the fleet's table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use nix::sys::signal::Signal;

use crate::support::client::Client;
use crate::support::cluster::{Cluster, Node};
use crate::support::imds::Imds;
use crate::support::moto::Moto;

/// What is promised.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);
/// A drain hands over in a second; a busy machine takes longer.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(6);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const NODES: [&str; 2] = ["one", "other"];

/// An Elastic IP at the emulator, and an instance for each node.
struct Address {
    allocation: String,
    instances: [String; 2],
}

/// Requests to EC2 in its own form.
async fn ec2(query: &str) -> String {
    let endpoint = Moto::parallel().endpoint.trim_start_matches("http://");
    let client = Client::new(endpoint.parse().expect("an address"), String::new());
    // The emulator finds the service in it, and believes the rest.
    let signed =
        "AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=none";
    let request = client.request(Method::POST, "/").header("authorization", signed);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(format!("{query}&Version=2016-11-15")).send().await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.text()
}

fn between<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

impl Address {
    async fn new() -> Self {
        let allocated = ec2("Action=AllocateAddress&Domain=vpc").await;
        let allocation = between(&allocated, "allocationId").expect("an allocation").to_owned();
        let launched = ec2("Action=RunInstances&ImageId=ami-12c6146b&MinCount=2&MaxCount=2").await;
        let mut ids = launched.split("<instanceId>").skip(1).filter_map(|rest| rest.split('<').next());
        let mut next = || ids.next().expect("two instances").to_owned();
        let instances = [next(), next()];
        Self { allocation, instances }
    }

    /// The node, by its place in [`NODES`], at whose instance it is.
    async fn holder(&self) -> Option<usize> {
        let query = format!("Action=DescribeAddresses&AllocationId.1={}", self.allocation);
        let answer = ec2(&query).await;
        let at = between(&answer, "instanceId").unwrap_or_default().to_owned();
        self.instances.iter().position(|instance| *instance == at)
    }

    async fn wait_held_by(&self, node: usize, within: Duration) -> Duration {
        let since = Instant::now();
        while self.holder().await != Some(node) {
            assert!(since.elapsed() < within, "{} has not got the address after {within:?}", NODES[node]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        since.elapsed()
    }

    /// As an operator or a hostile hand does.
    async fn give(&self, node: usize) {
        let (allocation, instance) = (&self.allocation, &self.instances[node]);
        let query =
            format!("Action=AssociateAddress&AllocationId={allocation}&InstanceId={instance}&AllowReassociation=true");
        ec2(&query).await;
    }
}

fn has_lease(metrics: &str) -> bool {
    metrics.lines().any(|line| line == "faasd_fleet_address_lease 1")
}

/// Two controllers that want one address. The first has it when this returns.
async fn two() -> (Cluster, Address, [Imds; 2]) {
    let address = Address::new().await;
    let mut cluster = Cluster::of(0, 0)
        .set("AWS__ELASTIC_IP_ALLOCATION", &address.allocation)
        .set("POOL__SANDBOXES_MAX", 60)
        .set("SHUTDOWN__DRAIN_MS", 20_000)
        .env("AWS_ENDPOINT_URL", &Moto::parallel().endpoint)
        .start()
        .await;
    let instances = [Imds::start().await, Imds::start().await];
    for (n, imds) in instances.iter().enumerate() {
        imds.tell("instance-id", &address.instances[n]);
        cluster.add_controller(NODES[n], &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint())]).await;
        if n == 0 {
            address.wait_held_by(0, TAKEN_OVER_WITHIN).await;
        }
    }
    (cluster, address, instances)
}

/// Looks again and again how many nodes say that they have the lease, until it is told to stop; the most at one moment.
///
/// Two answers are some milliseconds apart: nodes that hand over in between must not look like two holders, so two are asked again.
fn watched(nodes: [std::net::SocketAddr; 2]) -> (Arc<AtomicBool>, tokio::task::JoinHandle<(usize, usize)>) {
    let over = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let over = over.clone();
        async move {
            let (mut most, mut looks) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let holders = async || {
                    let mut holders = 0;
                    for node in nodes {
                        let asked = Client::new(node, String::new()).get("/metrics").try_send();
                        let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
                        holders += usize::from(matches!(answer, Ok(Ok(answer)) if has_lease(&answer.text())));
                    }
                    holders
                };
                let mut found = holders().await;
                if found > 1 {
                    found = holders().await;
                }
                most = most.max(found);
                looks += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (most, looks)
        }
    });
    (over, watching)
}

fn addresses(cluster: &Cluster) -> [std::net::SocketAddr; 2] {
    cluster.addresses().try_into().expect("two controllers that listen")
}

async fn says(node: &Node, line: &str) {
    let since = Instant::now();
    while !node.log().contains(line) {
        assert!(since.elapsed() < TAKEN_OVER_WITHIN, "{} never said {line:?}", node.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_loses_the_address_to_the_other_within_half_a_minute() {
    let (mut cluster, address, _instances) = two().await;
    let (over, watching) = watched(addresses(&cluster));
    // Longer than a lease: the first one keeps it, and the other gets nothing.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(address.holder().await, Some(0));
    cluster.node(NODES[0]).kill9();
    let took = address.wait_held_by(1, TAKEN_OVER_WITHIN).await;
    println!("taken over {took:?} after the kill");
    says(cluster.node(NODES[1]), "this controller has the fleet's address").await;
    // It comes back, and does not fight for it.
    cluster.restart(NODES[0]).await;
    for _ in 0..20 {
        assert_eq!(address.holder().await, Some(1));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    over.store(true, Ordering::Relaxed);
    let (most, looks) = watching.await.expect("no panic");
    assert!(most == 1 && looks > 100, "at most {most} at once had the lease, in {looks} looks");
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stopped_gives_way_and_never_takes_it_back() {
    let (mut cluster, address, _instances) = two().await;
    let (over, watching) = watched(addresses(&cluster));
    cluster.node(NODES[0]).signal(Signal::SIGSTOP);
    address.wait_held_by(1, TAKEN_OVER_WITHIN).await;
    cluster.node(NODES[0]).signal(Signal::SIGCONT);
    for _ in 0..40 {
        assert_eq!(address.holder().await, Some(1), "who was stopped took it back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    over.store(true, Ordering::Relaxed);
    let (most, looks) = watching.await.expect("no panic");
    assert!(most == 1 && looks > 20, "at most {most} at once had the lease, in {looks} looks");
    says(cluster.node(NODES[0]), "the lease of the fleet's address is lost").await;
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_hands_the_address_over_before_the_port_closes() {
    let (mut cluster, address, _instances) = two().await;
    let first = cluster.node(NODES[0]);
    let metrics = first.metrics().await.expect("figures");
    assert!(has_lease(&metrics), "{metrics}");
    first.signal(Signal::SIGTERM);
    let began = Instant::now();
    let mut served_until = Duration::ZERO;
    while address.holder().await != Some(1) {
        assert!(began.elapsed() < HANDED_OVER_WITHIN, "not handed over after {:?}", began.elapsed());
        // Who still comes here is served.
        if cluster.node(NODES[0]).metrics().await.is_some() {
            served_until = began.elapsed();
        }
    }
    let took = began.elapsed();
    println!("handed over in {took:?}, served for {served_until:?} of it");
    assert!(served_until + Duration::from_millis(1500) > took, "served for {served_until:?} of {took:?}");
    assert_eq!(cluster.node(NODES[0]).ended(STOP_LIMIT).await, Some(0));
    cluster.stop(STOP_LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_somebody_moves_comes_back_to_who_has_the_lease() {
    let (mut cluster, address, _instances) = two().await;
    address.give(1).await;
    let took = address.wait_held_by(0, TAKEN_OVER_WITHIN).await;
    println!("back after {took:?}");
    says(cluster.node(NODES[0]), "somebody moved the fleet's address").await;
    let metrics = cluster.node(NODES[0]).metrics().await.expect("figures");
    assert!(metrics.contains("faasd_fleet_address_changes_total{change=\"moved\"} 1"), "{metrics}");
    cluster.stop(STOP_LIMIT).await;
}

/// With no queue a controller can't do what callers want, so it does not ask for the address: the other one, which can, has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_not_ready_does_not_take_the_address() {
    let address = Address::new().await;
    let mut cluster = Cluster::of(0, 0)
        .set("AWS__ELASTIC_IP_ALLOCATION", &address.allocation)
        .set("POOL__SANDBOXES_MAX", 60)
        .env("AWS_ENDPOINT_URL", &Moto::parallel().endpoint)
        .start()
        .await;
    let imds = Imds::start().await;
    imds.tell("instance-id", &address.instances[0]);
    let lame = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint()), ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")];
    cluster.add_controller_unready(NODES[0], &lame);
    says(cluster.node(NODES[0]), "faasd is up").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(address.holder().await, None);
    let imds = Imds::start().await;
    imds.tell("instance-id", &address.instances[1]);
    cluster.add_controller(NODES[1], &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.endpoint())]).await;
    address.wait_held_by(1, TAKEN_OVER_WITHIN).await;
    cluster.stop(STOP_LIMIT).await;
}
