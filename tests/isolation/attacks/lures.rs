//! Things on the host that an attacker would like: a secret file, sockets of all kinds, a process, shared memory. The control finds them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;

/// In the daemon's environment, since operators keep secrets there.
pub const TOKEN: &str = "lure-token-4f1c2b9d";
/// In a file, and nowhere else.
pub const SECRET: &str = "lure-secret-93ab07de";

pub struct Lures {
    listeners: (TcpListener, UnixListener, UnixListener, UnixDatagram),
    process: Child,
    shared_memory: String,
    facts: Value,
}

fn text_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Lures {
    pub fn lay(daemon: &Daemon) -> Self {
        let home = daemon.footprint().home.clone();
        let file = home.join("lure");
        std::fs::write(&file, SECRET).expect("a file");
        let socket = home.join("lure.sock");
        let name = format!("faasd-lure-{}", daemon.pid());
        let of_name = |name: &str| SocketAddr::from_abstract_name(name).expect("an abstract name");
        let datagrams = format!("{name}-datagram");
        let listeners = (
            TcpListener::bind(("127.0.0.1", 0)).expect("a port"),
            UnixListener::bind(&socket).expect("a socket"),
            UnixListener::bind_addr(&of_name(&name)).expect("an abstract socket"),
            UnixDatagram::bind_addr(&of_name(&datagrams)).expect("an abstract socket"),
        );
        // Seconds that nobody else sleeps, to know it by.
        let seconds = format!("600.{}", daemon.pid());
        let process = Command::new("sleep").arg(&seconds).stdin(Stdio::null()).spawn().expect("a process");
        let made = text_of(Command::new("ipcmk").args(["-M", "64", "-p", "0666"]));
        let shared_memory = made.split_whitespace().last().unwrap_or_default().to_owned();
        let segments = std::fs::read_to_string("/proc/sysvipc/shm").expect("the table of segments");
        let mut segments = segments.lines().map(|line| line.split_whitespace());
        let key = segments.find_map(|mut words| {
            let key: i64 = words.next()?.parse().ok()?;
            (words.next()? == shared_memory).then_some(key)
        });
        let facts = json!({
            "file": file, "secret": SECRET, "token": TOKEN, "home": home, "data_dir": daemon.data_dir(),
            "admin_key": daemon.data_dir().join("admin.key"), "process": seconds, "pid": process.id(),
            "daemon_pid": daemon.pid(), "daemon_port": daemon.address().port(), "port": port_of(&listeners.0),
            "redis_port": pretend_redis(), "socket": socket, "abstract": name, "abstract_datagram": datagrams,
            "host_name": text_of(Command::new("uname").arg("-n")), "shm_key": key.expect("the segment is there"),
        });
        Self { listeners, process, shared_memory, facts }
    }

    /// Where they are, as the probes know them.
    pub fn facts(&self) -> &Value {
        &self.facts
    }
}

impl Drop for Lures {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("ipcrm").args(["-m", &self.shared_memory]).status();
        let _ = &self.listeners;
    }
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

/// Answers PING with PONG, at a port of its own, until the test process ends.
fn pretend_redis() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = port_of(&listener);
    std::thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let mut asked = [0; 16];
            let _ = caller.read(&mut asked);
            let _ = caller.write_all(b"+PONG\r\n");
        }
    });
    port
}
