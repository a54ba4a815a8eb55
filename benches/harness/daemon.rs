//! The daemon under load: the real executable, alone, with a data directory of its own.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::control::Control;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(40);

pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    pub key: String,
    home: Arc<TempDir>,
}

/// Configuration keys by their environment names without the prefix.
pub type Settings<'a> = [(&'a str, &'a str)];

impl Daemon {
    pub fn start(executable: &Path, settings: &Settings<'_>) -> io::Result<Self> {
        Self::start_in(Arc::new(tempfile::Builder::new().prefix("faasd-bench-").tempdir()?), executable, settings)
    }

    /// In the directory of one that has ended, with what that left.
    pub fn start_in(home: Arc<TempDir>, executable: &Path, settings: &Settings<'_>) -> io::Result<Self> {
        let data = data_dir(&home);
        let _ = fs::remove_file(data.join("address"));
        let log = File::create(home.path().join("log"))?;
        let mut child = Command::new(executable)
            .args(["--role", "both", "--listen", "127.0.0.1:0", "--isolation", "auto", "--data-dir"])
            .arg(&data)
            .env("FAASD_LOG__LEVEL", "warn")
            .env("FAASD_SANDBOX__CGROUP_PREFIX", format!("faasd-bench-{}", std::process::id()))
            .envs(settings.iter().map(|(key, value)| (format!("FAASD_{key}"), value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let since = Instant::now();
        let address = loop {
            if let Some(address) = ready(&data) {
                break address;
            }
            if child.try_wait()?.is_some() || since.elapsed() > START_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(home.path().join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("the daemon did not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let key = fs::read_to_string(data.join("admin.key"))?.trim().to_owned();
        Ok(Self { child, address, key, home })
    }

    pub fn control(&self) -> io::Result<Control> {
        Control::connect(self.address, &self.key)
    }

    pub fn home(&self) -> Arc<TempDir> {
        self.home.clone()
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Daemon {
    /// In order first, so that sandboxes, cgroups and mounts go too.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn data_dir(home: &TempDir) -> PathBuf {
    home.path().join("data")
}

fn ready(data: &Path) -> Option<SocketAddr> {
    let address = fs::read_to_string(data.join("address")).ok()?.trim().parse().ok()?;
    let (status, _) = Control::connect(address, "").ok()?.send("GET", "/ready", "", "").ok()?;
    (status == 200).then_some(address)
}
