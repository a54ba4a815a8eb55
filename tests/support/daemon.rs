//! A real `faasd` in a process of its own, with its own data directory, port, cgroups and user ids. It ends with the value.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_rustls::TlsConnector;

use super::certificates::{Authority, Files};
use super::client::Client;
use super::footprint::Footprint;
use super::slots::{Slot, UIDS_PER_DAEMON};
use super::surroundings::Surroundings;

/// A cold machine compiles the interpreter's modules at the first start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A killed daemon's launcher reads the end of its socket and ends every sandbox.
const CLEAR_LIMIT: Duration = Duration::from_secs(15);
/// Lines of the daemon's log shown when a test fails.
const LOG_LINES_SHOWN: usize = 80;

pub struct Daemon {
    child: Option<Child>,
    client: Client,
    settings: Vec<(String, String)>,
    tls: Option<TlsConnector>,
    surroundings: Surroundings,
    has_relative_data_dir: bool,
    footprint: Footprint,
    slot: Slot,
    /// Dropped last: it holds everything the daemon writes.
    _home: tempfile::TempDir,
}

/// What a test's daemon does differently from the default one.
#[derive(Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
    tls: Option<TlsConnector>,
    surroundings: Surroundings,
    has_relative_data_dir: bool,
    disk_bytes: Option<u64>,
}

impl Builder {
    /// Sets a configuration key by its environment name without the prefix: `RATE_LIMIT__BURST`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((format!("FAASD_{key}"), value.to_string()));
        self
    }

    /// Speaks HTTPS with this certificate, to clients that trust this authority.
    pub fn tls(mut self, authority: &Authority, files: &Files) -> Self {
        self.tls = Some(authority.connector());
        self.set("TLS__CERTIFICATE", files.certificate.display()).set("TLS__KEY", files.key.display())
    }

    pub fn inside(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = surroundings;
        self
    }

    /// The daemon is told its data directory as a path from its current one.
    pub fn with_relative_data_dir(mut self) -> Self {
        self.has_relative_data_dir = true;
        self
    }

    /// Its data directory is a file system of its own, of this size, in memory.
    pub fn on_disk_of(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }

    pub async fn start(self) -> Daemon {
        assert!(nix::unistd::geteuid().is_root(), "needs root, to make real sandboxes: run `make test` as root");
        let slot = Slot::take();
        let home = tempfile::Builder::new().prefix("faasd-test-").tempdir().expect("a temporary directory");
        let footprint = Footprint {
            cgroup_prefix: slot.cgroup_prefix.clone(),
            uid_first: slot.uid_first,
            uid_count: UIDS_PER_DAEMON,
            home: home.path().to_owned(),
        };
        fs::create_dir(footprint.temp_dir()).expect("a directory for the daemon's temporary files");
        fs::create_dir(home.path().join("scratch")).expect("a directory for the surroundings");
        if let Some(bytes) = self.disk_bytes {
            let (data, size) = (home.path().join("data"), format!("size={bytes}"));
            fs::create_dir(&data).expect("a data directory");
            // Unmounted with all else that is mounted below the home.
            nix::mount::mount(Some("tmpfs"), &data, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(&*size))
                .expect("a tmpfs");
        }
        let mut daemon = Daemon {
            child: None,
            client: Client::nowhere(),
            settings: self.settings,
            tls: self.tls,
            surroundings: self.surroundings,
            has_relative_data_dir: self.has_relative_data_dir,
            footprint,
            slot,
            _home: home,
        };
        daemon.spawn();
        daemon.wait_until_ready().await;
        daemon
    }
}

impl Daemon {
    pub async fn start() -> Self {
        Builder::default().start().await
    }

    /// With variables of the environment that are no keys of the configuration.
    pub fn default_with_env(variables: &[(&str, &str)]) -> Builder {
        let settings = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Builder { settings: settings.collect(), ..Builder::default() }
    }

    pub fn with(key: &str, value: impl ToString) -> Builder {
        Builder::default().set(key, value)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.footprint.home.join("data")
    }

    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("the daemon runs").id() as i32
    }

    pub fn admin_key(&self) -> String {
        let key = fs::read_to_string(self.data_dir().join("admin.key")).expect("the admin key file");
        key.trim().to_owned()
    }

    /// What the daemon wrote to stdout and stderr so far, over all its runs.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.footprint.home.join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    fn spawn(&mut self) {
        let _ = fs::remove_file(self.data_dir().join("address"));
        let append = |name: &str| {
            let path = self.footprint.home.join(name);
            File::options().create(true).append(true).open(path).expect("a file for the daemon's output")
        };
        let mut command = self.surroundings.command(env!("CARGO_BIN_EXE_faasd"), &self.footprint.home.join("scratch"));
        command
            .args(["--role", "both", "--listen", "127.0.0.1:0", "--isolation", "auto", "--data-dir"])
            .arg(if self.has_relative_data_dir { PathBuf::from("data") } else { self.data_dir() })
            .current_dir(&self.footprint.home)
            .env("TMPDIR", self.footprint.temp_dir())
            .env("FAASD_SANDBOX__CGROUP_PREFIX", &self.slot.cgroup_prefix)
            .env("FAASD_SANDBOX__UID_FIRST", self.slot.uid_first.to_string())
            .env("FAASD_SANDBOX__UID_COUNT", UIDS_PER_DAEMON.to_string())
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .stdin(self.surroundings.stdin())
            .stdout(append("stdout"))
            .stderr(append("stderr"));
        let child = self.child.insert(command.spawn().expect("the daemon's executable starts"));
        self.surroundings.let_in(child);
    }

    async fn wait_until_ready(&mut self) {
        let since = Instant::now();
        loop {
            let exited = self.child.as_mut().and_then(|child| child.try_wait().expect("the daemon can be waited for"));
            if let Some(status) = exited {
                self.child = None;
                panic!("the daemon ended instead of starting: {status}");
            }
            if let Some(address) = read_address(&self.data_dir()) {
                self.client = Client::new(address, self.admin_key());
                if let Some(tls) = &self.tls {
                    self.client = self.client.clone().over(tls.clone());
                }
                if self.client.get("/ready").try_send().await.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
            }
            assert!(since.elapsed() < START_LIMIT, "the daemon is not ready after {START_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the daemon can be signalled");
    }

    /// Ends the daemon with nothing it could do about it, and waits for it alone.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().expect("the daemon can be killed");
        child.wait().expect("the daemon can be waited for");
    }

    /// Asks the daemon to end, and says how it did and how long that took.
    pub async fn sigterm(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        self.signal(Signal::SIGTERM);
        self.wait_for_exit(limit).await
    }

    pub async fn wait_for_exit(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let since = Instant::now();
        let child = self.child.as_mut().expect("the daemon runs");
        loop {
            if let Some(status) = child.try_wait().expect("the daemon can be waited for") {
                self.child = None;
                return (status, since.elapsed());
            }
            assert!(since.elapsed() < limit, "the daemon still runs {limit:?} after SIGTERM");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts it again over the same data directory.
    pub async fn restart(&mut self) {
        self.kill9();
        self.spawn();
        self.wait_until_ready().await;
    }
}

impl Deref for Daemon {
    type Target = Client;

    /// The admin's client.
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- the daemon's last {} lines ---\n{}", shown.len(), shown.join("\n"));
        }
        let since = Instant::now();
        while !self.footprint.processes().is_empty() && since.elapsed() < CLEAR_LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
        let survivors = self.footprint.processes();
        for pid in &survivors {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        self.footprint.clear();
        if !std::thread::panicking() {
            assert!(survivors.is_empty(), "processes {survivors:?} outlived the daemon by {CLEAR_LIMIT:?}");
        }
    }
}

/// `<data-dir>/address` holds `host:port` from the moment the daemon listens.
fn read_address(data_dir: &Path) -> Option<SocketAddr> {
    fs::read_to_string(data_dir.join("address")).ok()?.trim().parse().ok()
}
