//! A real `redis-server` on a port of its own, with nothing on disk. It ends with the value, and with the test's thread, however that ends.

// By its path: the bench has this file under another parent.
#[path = "redis/groups.rs"]
mod groups;

pub use groups::{Cluster, Sentinel};

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::certificates::Files;

/// It is ready in some 10 ms; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A port that was free when asked for may be another's a moment later.
const PORT_TRIES: usize = 5;

/// What a server is told beside the common.
#[derive(Clone, Default)]
pub struct Builder {
    arguments: Vec<String>,
    tls: Option<Files>,
    has_own_clock: bool,
    is_sentinel: bool,
}

pub struct RedisServer {
    child: Option<Child>,
    builder: Builder,
    port: u16,
    dir: tempfile::TempDir,
}

impl Builder {
    /// Options as in its configuration file: `--user`, `default off`.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Speaks TLS alone.
    pub fn tls(mut self, files: &Files) -> Self {
        self.tls = Some(files.clone());
        self
    }

    /// Its clock can be put forward.
    pub fn own_clock(mut self) -> Self {
        self.has_own_clock = true;
        self
    }

    fn sentinel(mut self) -> Self {
        self.is_sentinel = true;
        self
    }

    pub fn start(self) -> RedisServer {
        let dir = tempfile::Builder::new().prefix("faasd-redis-").tempdir().expect("a temporary directory");
        let mut server = RedisServer { child: None, builder: self, port: 0, dir };
        for _ in 0..PORT_TRIES {
            server.port = free_port();
            if server.spawn() {
                return server;
            }
        }
        panic!("redis-server does not start:\n{}", server.log());
    }
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl RedisServer {
    pub fn start() -> Self {
        Builder::default().start()
    }

    pub fn url(&self) -> String {
        let scheme = if self.builder.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// `false`: it ended again, for its port was another's.
    fn spawn(&mut self) -> bool {
        let log = self.dir.path().join("log");
        let output = File::create(&log).expect("a log file");
        // Whatever becomes of the test's process, it ends too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program(self.dir.path()));
        if self.builder.is_sentinel {
            command.arg(self.dir.path().join("sentinel.conf")).arg("--sentinel");
        }
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--dir"]).arg(self.dir.path());
        match &self.builder.tls {
            None => command.args(["--port", &self.port.to_string()]),
            Some(files) => command
                .args(["--port", "0", "--tls-port", &self.port.to_string(), "--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(&files.certificate)
                .arg("--tls-key-file")
                .arg(&files.key)
                .arg("--tls-ca-cert-file")
                .arg(&files.authority),
        };
        if !self.builder.is_sentinel {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        command.args(&self.builder.arguments);
        if self.builder.has_own_clock {
            command
                .env("LD_PRELOAD", faketime())
                .env("FAKETIME_TIMESTAMP_FILE", self.shift_file())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            if !self.shift_file().exists() {
                fs::write(self.shift_file(), "+0").expect("a file for the clock");
            }
        }
        let child = command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn();
        let child = self.child.insert(child.expect("setpriv of util-linux"));
        let since = Instant::now();
        loop {
            let log = fs::read_to_string(&log).unwrap_or_default();
            if log.contains("Ready to accept connections") || log.contains("+monitor master") {
                return true;
            }
            if child.try_wait().expect("redis-server can be waited for").is_some() {
                self.child = None;
                return false;
            }
            assert!(since.elapsed() < START_LIMIT, "redis-server is not ready after {START_LIMIT:?}:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn shift_file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// Its clock is that much ahead of the machine's from now on.
    pub fn shift_clock(&self, by: Duration) {
        // Read at each look at the clock, so never half-written.
        let new = self.dir.path().join("clock.new");
        fs::write(&new, format!("+{}", by.as_secs_f64())).expect("a file for the clock");
        fs::rename(new, self.shift_file()).expect("a file for the clock");
    }

    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("redis-server can be killed");
        child.wait().expect("redis-server can be waited for");
    }

    /// Starts it again where it was, with nothing of what it held.
    pub fn restart(&mut self) {
        self.kill9();
        for _ in 0..PORT_TRIES {
            if self.spawn() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("redis-server does not start again:\n{}", self.log());
    }

    /// Stops it where it is: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().expect("redis-server runs").id();
        kill(Pid::from_raw(pid as i32), signal).expect("redis-server can be signalled");
    }

    /// Sends one command in clear and returns what comes back, as it comes.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(self.port, words)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The server, which is another name of a tool: Debian has it without a service that would start at once.
fn program(dir: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    let found = std::env::split_paths(&path).map(|folder| folder.join("redis-check-rdb")).find(|tool| tool.exists());
    let link = dir.join("redis-server");
    if !link.exists() {
        let tool = found.expect("redis-check-rdb: run scripts/install-test-deps.sh");
        std::os::unix::fs::symlink(tool, &link).expect("a link");
    }
    link
}

fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(Result::ok);
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path: &PathBuf| path.exists());
    found.expect("libfaketime: run scripts/install-test-deps.sh")
}

/// One command to whoever listens at `port`. An array's answer is its elements, a line each.
fn ask(port: u16, words: &[&str]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("redis-server listens");
    stream.set_read_timeout(Some(START_LIMIT)).expect("a socket");
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).expect("redis-server reads");
    answer(&mut BufReader::new(stream))
}

fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("redis-server answers");
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    match (kind, rest.parse::<usize>()) {
        ("$", Ok(length)) => {
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text).expect("redis-server answers");
            String::from_utf8_lossy(&text[..length]).into_owned()
        }
        ("*", Ok(length)) => (0..length).map(|_| answer(stream)).collect::<Vec<_>>().join("\n"),
        _ => line.to_owned(),
    }
}

/// Writes a file that only this test reads.
fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file");
}
