//! The emulator of AWS, moto: started once for a test process on free ports, shared by its tests, and ended with it however it ends.
//!
//! Its DynamoDB copies and restores whole tables around a transaction and checks a condition before it writes, so that requests in
//! parallel undo each other. Each of its processes therefore answers one request at a time; there is one for each processor, and
//! a world that has its own tables stays with one of them. Whatever waits within a request (a long poll) must not ask these.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use faasd::adapters::aws::client;
use faasd::config;

/// One request at a time; a thread more ends the process when whoever started it is gone and its end of the pipe with it.
const SERVER: &str = r#"
import logging, os, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
logging.getLogger("werkzeug").setLevel(logging.ERROR)
def end_with_parent():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=sys.argv[1] == "parallel")
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Processes that answer one request at a time.
const SERIAL: usize = 2;

/// A running emulator. It ends when its standard input does.
pub struct Moto {
    pub endpoint: String,
    _process: Child,
    _alive: ChildStdin,
}

impl Moto {
    fn start(mode: &str) -> Self {
        let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-deps/moto/bin/python");
        let mut process = Command::new(&python)
            .args(["-I", "-c", SERVER, mode])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/install-test-deps.sh", python.display()));
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap_or_else(|_| panic!("the emulator of AWS did not start: {line:?}"));
        let alive = process.stdin.take().unwrap();
        Self { endpoint: format!("http://127.0.0.1:{port}"), _process: process, _alive: alive }
    }

    /// For DynamoDB: the next of those that answer one request at a time.
    pub fn serial() -> &'static Self {
        static SERVERS: [OnceLock<Moto>; SERIAL] = [const { OnceLock::new() }; SERIAL];
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        SERVERS[NEXT.fetch_add(1, Ordering::Relaxed) % SERIAL].get_or_init(|| Moto::start("serial"))
    }

    /// For everything else.
    pub fn parallel() -> &'static Self {
        static SERVER: OnceLock<Moto> = OnceLock::new();
        SERVER.get_or_init(|| Moto::start("parallel"))
    }

    /// What a client needs to ask it.
    pub async fn sdk(&self) -> SdkConfig {
        sdk(&self.endpoint).await
    }
}

/// What the daemon's clients need to ask whoever answers as AWS at this endpoint.
pub async fn sdk(endpoint: &str) -> SdkConfig {
    // A test waits longer for a busy machine than a caller would for the real thing.
    let aws = config::Aws { operation_timeout_ms: 60_000, ..Default::default() };
    client::loader(&aws)
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .load()
        .await
}
