//! A network namespace with one cable out of it, which can be pulled. Who is inside reaches this machine's loopback through forwarders.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

static MADE: AtomicU32 = AtomicU32::new(0);
/// Cables of one test process; names of interfaces have 15 characters at most.
const MADE_MAX: u32 = 60;

pub struct Partition {
    name: String,
    cable: String,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
    forwarders: JoinSet<()>,
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("`ip` starts (package iproute2)");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Partition {
    pub fn new() -> Self {
        let pid = std::process::id();
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        assert!(nth < MADE_MAX, "more cables than addresses");
        // 10.0.0.0/8 is nobody's on a machine for tests; process and number make the network.
        let network = [(pid >> 8) as u8, pid as u8, (nth * 4) as u8];
        let address = |last: u8| Ipv4Addr::new(10, network[0], network[1], network[2] + last);
        let (outside, inside) = (address(1), address(2));
        let (name, cable, end) =
            (format!("faasd-test-{pid}-{nth}"), format!("ft{pid}-{nth}"), format!("fi{pid}-{nth}"));
        ip(&format!("netns add {name}"));
        let made = Self { name: name.clone(), cable: cable.clone(), outside, inside, forwarders: JoinSet::new() };
        ip(&format!("link add {cable} type veth peer name {end} netns {name}"));
        ip(&format!("addr add {outside}/30 dev {cable}"));
        ip(&format!("link set {cable} up"));
        ip(&format!("-n {name} addr add {inside}/30 dev {end}"));
        ip(&format!("-n {name} link set {end} up"));
        ip(&format!("-n {name} link set lo up"));
        made
    }

    /// What a command line begins with that is to run inside.
    pub fn prefix(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", self.namespace().display())]
    }

    /// Where those inside listen for those outside.
    pub fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// What somebody inside is answered who asks for a page there.
    pub fn get(&self, address: SocketAddr, path: &str) -> String {
        let (host, port) = (address.ip(), address.port());
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET {path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let words = self.prefix();
        let mut command = Command::new(&words[0]);
        let asked =
            command.args(&words[1..]).args(["timeout", "5", "bash", "-c", &script]).output().expect("a shell inside");
        String::from_utf8_lossy(&asked.stdout).into_owned()
    }

    /// Where those inside find what listens here on the loopback: the same URL with another address and port.
    pub async fn way_to(&mut self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (address, path) = rest.split_once('/').map_or((rest, ""), |(address, path)| (address, path));
        let target: SocketAddr = address.parse().expect("an address and a port");
        let listener = TcpListener::bind((self.outside, 0)).await.expect("a port at the cable");
        let port = listener.local_addr().expect("an address").port();
        self.forwarders.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        let slash = if path.is_empty() { "" } else { "/" };
        format!("{scheme}://{}:{port}{slash}{path}", self.outside)
    }

    /// Pulls the cable: nothing arrives any more, and nobody is told.
    pub fn cut(&self) {
        ip(&format!("link set {} down", self.cable));
    }

    pub fn heal(&self) {
        ip(&format!("link set {} up", self.cable));
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        // With the namespace its end of the cable goes, and with that the other.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        assert!(std::thread::panicking() || !self.namespace().exists(), "the namespace {} is left", self.name);
    }
}
