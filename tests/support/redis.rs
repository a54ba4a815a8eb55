//! A real `redis-server` on a port of its own, with nothing on disk. It ends with the value, and with the test's thread, however that ends.

// By its path: the bench has this file under another parent.
#[path = "redis/groups.rs"]
mod groups;

pub use groups::{Cluster, Sentinel};

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
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
    /// Options as in its configuration file: `--user default off`, and nothing in it has a space.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        let words = arguments.iter().flat_map(|argument| argument.split(' '));
        self.arguments.extend(words.filter(|word| !word.is_empty()).map(ToOwned::to_owned));
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
            if !self.shift_file().exists() {
                fs::write(self.shift_file(), 0i64.to_ne_bytes()).expect("a file for the clock");
            }
            command.env("LD_PRELOAD", clock()).env("FAASD_TEST_CLOCK", self.shift_file());
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
        let file = File::options().write(true).open(self.shift_file()).expect("the file of the clock");
        file.write_all_at(&(by.as_micros() as i64).to_ne_bytes(), 0).expect("the file of the clock");
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

/// The library with the clock that can be put forward, compiled once.
fn clock() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (new, library) = (folder.join(format!("clock-{}.so", std::process::id())), folder.join("clock.so"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/redis/clock.c");
        let made = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&new)
            .arg(source)
            .status();
        assert!(made.expect("a C compiler").success(), "{source} does not compile");
        fs::rename(new, &library).expect("a library");
        library
    })
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
