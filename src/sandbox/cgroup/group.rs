//! The groups of one sandbox, and their kept descriptors.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{CgroupError, Controller, Layout};

/// Counters as they stand; differences between two readings are one call's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    pub cpu_us: u64,
    pub throttled_us: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub oom_kills: u64,
}

/// Which spelling a kept file speaks.
#[derive(Debug)]
enum Kept {
    V1(File),
    V2(File),
}

impl Kept {
    fn file(&self) -> &File {
        match self {
            Kept::V1(file) | Kept::V2(file) => file,
        }
    }
}

/// The groups of one sandbox.
#[derive(Debug)]
pub struct Group {
    /// One directory per hierarchy.
    directories: Vec<PathBuf>,
    /// v1 `tasks` files, for the child to write itself into.
    tasks: Vec<OwnedFd>,
    /// The v2 group, to be cloned into.
    v2: Option<OwnedFd>,
    pub(super) memory: Option<(Kind, PathBuf)>,
    pub(super) cpu: Option<(Kind, PathBuf)>,
    pub(super) io_dir: Option<(Kind, PathBuf)>,
    pub(super) pids_dir: Option<PathBuf>,
    memory_event: Option<OwnedFd>,
    peak: Option<Kept>,
    oom: Option<Kept>,
    cpu_time: Option<Kept>,
    throttled: Option<Kept>,
    io: Option<Kept>,
    pids: Option<File>,
    freeze: Option<Kept>,
}

/// On which kind of hierarchy a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V1,
    V2,
}

impl Group {
    /// Makes the groups `name` below the project's own, with `pids` limited from the start.
    pub fn make(layout: &Layout, name: &str) -> Result<Self, CgroupError> {
        let mut directories: Vec<PathBuf> = layout.parents().iter().map(|parent| parent.join(name)).collect();
        directories.dedup();
        for directory in &directories {
            // The parents too: the launcher of an earlier run may have removed them after this run made them.
            fs::create_dir_all(directory).map_err(CgroupError::new("make", directory))?;
        }
        let place = |controller: Controller| -> Option<(Kind, PathBuf)> {
            if layout.on_v2.contains(&controller) {
                layout.v2.as_ref().map(|parent| (Kind::V2, parent.join(name)))
            } else {
                layout.v1.get(&controller).map(|parent| (Kind::V1, parent.join(name)))
            }
        };
        let keep = |controller: Controller, v1: &str, v2: &str| -> Result<Option<Kept>, CgroupError> {
            Ok(match place(controller) {
                Some((Kind::V1, dir)) => open(&dir.join(v1))?.map(Kept::V1),
                Some((Kind::V2, dir)) => open(&dir.join(v2))?.map(Kept::V2),
                None => None,
            })
        };
        let mut v1_directories: Vec<PathBuf> = layout.v1.values().map(|parent| parent.join(name)).collect();
        v1_directories.sort();
        v1_directories.dedup();
        let mut tasks = Vec::new();
        for directory in &v1_directories {
            let path = directory.join("tasks");
            let file = OpenOptions::new().write(true).open(&path).map_err(CgroupError::new("open", path))?;
            tasks.push(OwnedFd::from(file));
        }
        let v2 = layout
            .v2
            .as_ref()
            .map(|parent| {
                let path = parent.join(name);
                OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_DIRECTORY | libc::O_PATH)
                    .open(&path)
                    .map(OwnedFd::from)
                    .map_err(CgroupError::new("open", path))
            })
            .transpose()?;
        let pids_dir = place(Controller::Pids).map(|(_, dir)| dir);
        let oom = keep(Controller::Memory, "memory.oom_control", "memory.events")?;
        let memory_event = match (&oom, place(Controller::Memory)) {
            (Some(Kept::V1(file)), Some((_, dir))) => watch_memory(file, &dir)?,
            _ => None,
        };
        Ok(Self {
            tasks,
            v2,
            memory: place(Controller::Memory),
            cpu: place(Controller::Cpu),
            peak: keep(Controller::Memory, "memory.max_usage_in_bytes", "memory.peak")?,
            oom,
            memory_event,
            io_dir: place(Controller::Io),
            cpu_time: keep(Controller::CpuAccounting, "cpuacct.usage", "cpu.stat")?,
            throttled: keep(Controller::Cpu, "cpu.stat", "cpu.stat")?,
            io: keep(Controller::Io, "blkio.throttle.io_service_bytes", "io.stat")?,
            pids: match &pids_dir {
                Some(dir) => open(&dir.join("pids.current"))?,
                None => None,
            },
            freeze: keep(Controller::Freezer, "freezer.state", "cgroup.freeze")?,
            pids_dir,
            directories,
        })
    }

    /// Files for the sandbox's first process to write `0` into (v1).
    pub fn tasks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tasks.iter().map(AsFd::as_fd)
    }

    /// The group to clone into (v2).
    pub fn v2(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Readable once the kernel found no memory for this group; only on v1, where it does not end the whole group by itself.
    pub fn take_memory_event(&mut self) -> Option<OwnedFd> {
        self.memory_event.take()
    }

    /// Forgets the peak so far, so that [`Group::peak_bytes`] speaks of what comes. `false`: this kernel can't.
    pub fn reset_peak(&self) -> bool {
        match &self.peak {
            Some(kept) => kept.file().write_at(b"0", 0).is_ok(),
            None => false,
        }
    }

    /// Highest memory use since the last reset, or in the group's life where it can't be reset.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.as_ref().and_then(|kept| number(kept.file())).unwrap_or(0)
    }

    /// Processor time used so far.
    pub fn cpu_us(&self) -> u64 {
        match &self.cpu_time {
            Some(Kept::V1(file)) => number(file).unwrap_or(0) / 1000,
            Some(Kept::V2(file)) => keyed(text(file, &mut [0; 1024]), "usage_usec"),
            None => 0,
        }
    }

    pub fn readings(&self) -> Readings {
        let mut buffer = [0; 2048];
        let mut readings = Readings { cpu_us: self.cpu_us(), ..Readings::default() };
        match &self.throttled {
            Some(Kept::V1(file)) => readings.throttled_us = keyed(text(file, &mut buffer), "throttled_time") / 1000,
            Some(Kept::V2(file)) => readings.throttled_us = keyed(text(file, &mut buffer), "throttled_usec"),
            None => {}
        }
        match &self.io {
            Some(Kept::V1(file)) => {
                (readings.read_bytes, readings.write_bytes) = io_v1(text(file, &mut buffer));
            }
            Some(Kept::V2(file)) => {
                (readings.read_bytes, readings.write_bytes) = io_v2(text(file, &mut buffer));
            }
            None => {}
        }
        readings.oom_kills = self.oom_kills();
        readings
    }

    /// Processes of this group that the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let mut buffer = [0; 512];
        self.oom.as_ref().map_or(0, |kept| keyed(text(kept.file(), &mut buffer), "oom_kill"))
    }

    /// Processes and threads alive; `None` where nobody counts.
    pub fn tasks_alive(&self) -> Option<u64> {
        self.pids.as_ref().and_then(number)
    }

    /// Processes alive, threads not counted. Opens a file: not for the path that every call goes.
    pub fn processes(&self) -> usize {
        let Some(dir) = &self.pids_dir else { return 0 };
        fs::read_to_string(dir.join("cgroup.procs")).map_or(0, |list| list.lines().count())
    }

    pub fn freeze(&self) -> io::Result<()> {
        match &self.freeze {
            Some(Kept::V1(file)) => write_kept(file, b"FROZEN"),
            Some(Kept::V2(file)) => write_kept(file, b"1"),
            None => Ok(()),
        }
    }

    pub fn thaw(&self) -> io::Result<()> {
        match &self.freeze {
            Some(Kept::V1(file)) => write_kept(file, b"THAWED"),
            Some(Kept::V2(file)) => write_kept(file, b"0"),
            None => Ok(()),
        }
    }

    /// SIGKILL to whatever runs in the groups. For what no pidfd leads to; opens files. They must not be used for anything new
    /// afterwards: the kernel (6.18) kills at birth what is cloned into a group that was once killed.
    pub fn kill(&self) {
        let _ = self.thaw();
        for directory in &self.directories {
            super::sweep::kill_all(directory);
        }
        // A v1 freezer keeps even killed processes.
        let _ = self.thaw();
    }

    /// Removes the groups; `false` if one still has processes.
    pub fn remove(&self) -> bool {
        self.directories.iter().fold(true, |gone, directory| {
            let removed = match fs::remove_dir(directory) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            gone && removed
        })
    }
}

/// Opens for reading and, where the file allows it, writing; `None` if this kernel has no such file.
fn open(path: &Path) -> Result<Option<File>, CgroupError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .or_else(|_| OpenOptions::new().read(true).open(path))
        .or_else(|_| OpenOptions::new().write(true).open(path));
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CgroupError::new("open", path)(error)),
    }
}

/// Has the kernel tell when this v1 group is out of memory (its memory.rst, "OOM Control").
fn watch_memory(oom_control: &File, dir: &Path) -> Result<Option<OwnedFd>, CgroupError> {
    let path = dir.join("cgroup.event_control");
    if !path.exists() {
        return Ok(None);
    }
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|error| CgroupError::new("make an eventfd for", &path)(error.into()))?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), oom_control.as_raw_fd());
    super::write(&path, &line)?;
    Ok(Some(OwnedFd::from(event)))
}

fn write_kept(file: &File, value: &[u8]) -> io::Result<()> {
    file.write_at(value, 0).map(drop)
}

/// What a kept file says now, as far as it fits; empty when it can't be read or is no text.
fn text<'a>(file: &File, buffer: &'a mut [u8]) -> &'a str {
    let length = file.read_at(buffer, 0).unwrap_or(0);
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

fn number(file: &File) -> Option<u64> {
    let mut buffer = [0; 32];
    text(file, &mut buffer).trim_end().parse().ok()
}

/// The value behind `key ` at the start of a line; 0 if absent.
fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Sums of `MAJ:MIN Read N` and `MAJ:MIN Write N`.
fn io_v1(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(what), Some(bytes)) = (words.next(), words.next().and_then(|n| n.parse::<u64>().ok())) else {
            continue;
        };
        match what {
            "Read" => sums.0 += bytes,
            "Write" => sums.1 += bytes,
            _ => {}
        }
    }
    sums
}

/// Sums of `rbytes=N` and `wbytes=N`.
fn io_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum();
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_both_spellings() {
        assert_eq!(keyed("usage_usec 12\nuser_usec 5\n", "usage_usec"), 12);
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(keyed("", "x"), 0);
        assert_eq!(io_v1("8:0 Read 10\n8:0 Write 20\n8:16 Read 1\nTotal 31\n"), (11, 20));
        assert_eq!(io_v2("254:0 rbytes=5 wbytes=6 rios=1\n8:0 rbytes=1 wbytes=0\n"), (6, 6));
    }
}
