//! What a daemon leaves on a machine: processes, cgroups, mounts, sockets, temporary files. Read from the kernel, not from
//! what the daemon says of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Hierarchy, delegated slices, the daemon's group, a group of groups, a sandbox's: none lies deeper.
const CGROUP_DEPTH_MAX: usize = 9;

/// By what the things of one daemon are known.
#[derive(Clone, Debug)]
pub struct Footprint {
    pub cgroup_prefix: String,
    pub uid_first: u32,
    pub uid_count: u32,
    /// Holds the data directory and the daemon's `TMPDIR`; its path is in every mount and socket of the daemon.
    pub home: PathBuf,
}

impl Footprint {
    pub fn temp_dir(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// Processes of the daemon: itself, launcher, zygotes, sandboxes.
    pub fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").expect("/proc can be listed");
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.owns_process(*pid)).collect()
    }

    /// Processes that run under one of the daemon's sandbox user ids.
    pub fn sandbox_processes(&self) -> Vec<i32> {
        self.processes().into_iter().filter(|pid| self.has_sandbox_uid(*pid)).collect()
    }

    fn owns_process(&self, pid: i32) -> bool {
        if is_zombie(pid) {
            return false;
        }
        let started_by_daemon = fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|env| contains(&env, format!("CGROUP_PREFIX={}\0", self.cgroup_prefix).as_bytes()));
        let in_group = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|groups| groups.lines().any(|line| self.names_group(Path::new(line))));
        started_by_daemon || in_group || self.has_sandbox_uid(pid)
    }

    fn has_sandbox_uid(&self, pid: i32) -> bool {
        let uids = self.uid_first..self.uid_first + self.uid_count;
        status_field(pid, "Uid:").and_then(|uid| uid.parse().ok()).is_some_and(|uid: u32| uids.contains(&uid))
    }

    fn names_group(&self, path: &Path) -> bool {
        path.components().any(|part| {
            let rest = part.as_os_str().to_str().and_then(|part| part.strip_prefix(&self.cgroup_prefix));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    }

    /// Every cgroup of the daemon in every hierarchy, deepest first.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from(CGROUP_ROOT), 0)];
        while let Some((dir, depth)) = open.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                if self.names_group(Path::new(&entry.path())) {
                    found.push(entry.path());
                }
                if depth < CGROUP_DEPTH_MAX {
                    open.push((entry.path(), depth + 1));
                }
            }
        }
        found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        found
    }

    /// Mounts in the test's own namespace, deepest last.
    pub fn mounts(&self) -> Vec<String> {
        let home = self.home.to_string_lossy();
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo can be read");
        let lines = table.lines().filter(|line| line.contains(&*home) || line.contains(&self.cgroup_prefix));
        lines.filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect()
    }

    fn sockets(&self) -> Vec<String> {
        let home = self.home.to_string_lossy();
        let table = fs::read_to_string("/proc/net/unix").expect("/proc/net/unix can be read");
        table.lines().filter(|line| line.contains(&*home)).map(str::to_owned).collect()
    }

    fn temp_files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.temp_dir()) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// One line for each thing that a daemon that has ended should not have left.
    pub fn remains(&self) -> Vec<String> {
        let describe = |pid: i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " "))
        };
        let mut remains: Vec<String> = self.processes().into_iter().map(describe).collect();
        remains.extend(self.cgroups().iter().map(|path| format!("cgroup {}", path.display())));
        remains.extend(self.mounts().iter().map(|mount| format!("mount {mount}")));
        remains.extend(self.sockets().iter().map(|socket| format!("socket {socket}")));
        remains.extend(self.temp_files().iter().map(|path| format!("temporary file {}", path.display())));
        remains
    }

    /// Fails unless everything is gone within `limit`.
    pub fn assert_nothing_remains(&self, limit: Duration) {
        let since = Instant::now();
        loop {
            let remains = self.remains();
            if remains.is_empty() {
                return;
            }
            assert!(since.elapsed() < limit, "left behind after {limit:?}:\n{}", remains.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes away what is left of a daemon that was killed for good, so that no test leaves anything either.
    pub fn clear(&self) {
        for mount in self.mounts().iter().rev() {
            let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
        for cgroup in self.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// An instrument that sees nothing would pass every test.
#[test]
fn a_footprint_shows_what_is_there_and_not_what_is_not() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let footprint = Footprint {
        cgroup_prefix: format!("faasd-test-{}-self", std::process::id()),
        // Nobody's: beyond every range that a slot can have.
        uid_first: 2_000_000_000,
        uid_count: 2,
        home: home.path().to_owned(),
    };
    fs::create_dir(footprint.temp_dir()).expect("a directory");
    assert_eq!(footprint.remains(), Vec::<String>::new());

    let sleeper = std::process::Command::new("sleep")
        .arg("60")
        .env("FAASD_SANDBOX__CGROUP_PREFIX", &footprint.cgroup_prefix)
        .spawn();
    let mut sleeper = sleeper.expect("a process");
    fs::write(footprint.temp_dir().join("left"), "x").expect("a file");
    let _socket = std::os::unix::net::UnixListener::bind(home.path().join("socket")).expect("a socket");
    let remains = footprint.remains().join("\n");
    sleeper.kill().and_then(|()| sleeper.wait()).expect("it ends");
    for what in ["process", "sleep 60", "temporary file", "socket"] {
        assert!(remains.contains(what), "{what} is not seen:\n{remains}");
    }
    assert!(footprint.processes().is_empty(), "and its end is seen too");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn status_field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn is_zombie(pid: i32) -> bool {
    status_field(pid, "State:").is_none_or(|state| state == "Z" || state == "X")
}

/// Bytes in files below `dir`.
pub fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
