//! The groups of one sandbox: made, limited, joined, frozen, removed. What it uses is read by [`Meter`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::meter::{Meter, open};
use super::{CgroupError, Controller, Layout};

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub memory_bytes: u64,
    /// Weight against other sandboxes, 1024 being one whole processor's worth.
    pub cpu_shares: u64,
    /// Hard ceiling in microseconds of processor time per 100 ms.
    pub cpu_quota_us: u64,
    pub pids: u32,
}

const CPU_PERIOD_US: u64 = 100_000;

/// Which spelling a kept file speaks.
#[derive(Debug)]
enum Kept {
    V1(File),
    V2(File),
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
    memory: Option<(Kind, PathBuf)>,
    cpu: Option<(Kind, PathBuf)>,
    pids_dir: Option<PathBuf>,
    meter: Meter,
    freeze: Option<Kept>,
}

/// On which kind of hierarchy a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
        Ok(Self {
            tasks,
            v2,
            memory: place(Controller::Memory),
            cpu: place(Controller::Cpu),
            meter: Meter::open(layout, name)?,
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

    /// Closes what the first process came in by: six descriptors less, with a thousand sandboxes.
    pub fn close_entrance(&mut self) {
        self.tasks.clear();
        self.v2 = None;
    }

    /// Sets or changes the limits. No swap beyond the memory.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let bytes = limits.memory_bytes.to_string();
        match &self.memory {
            Some((Kind::V1, dir)) => {
                // The limit with swap may never be below the one without: whichever order is allowed now works.
                let (plain, with_swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
                let has_swap_limit = with_swap.exists();
                if write(&plain, &bytes).is_err() && has_swap_limit {
                    write(&with_swap, &bytes)?;
                    write(&plain, &bytes)?;
                } else if has_swap_limit {
                    write(&with_swap, &bytes)?;
                } else {
                    write(&plain, &bytes)?;
                }
            }
            Some((Kind::V2, dir)) => {
                write(&dir.join("memory.max"), &bytes)?;
                write(&dir.join("memory.oom.group"), "1")?;
                let swap = dir.join("memory.swap.max");
                if swap.exists() {
                    write(&swap, "0")?;
                }
            }
            None => {}
        }
        match &self.cpu {
            Some((Kind::V1, dir)) => {
                write(&dir.join("cpu.shares"), &limits.cpu_shares.clamp(2, 262_144).to_string())?;
                let quota = dir.join("cpu.cfs_quota_us");
                if quota.exists() {
                    write(&quota, &limits.cpu_quota_us.to_string())?;
                }
            }
            Some((Kind::V2, dir)) => {
                write(&dir.join("cpu.weight"), &(limits.cpu_shares * 100 / 1024).clamp(1, 10_000).to_string())?;
                write(&dir.join("cpu.max"), &format!("{} {CPU_PERIOD_US}", limits.cpu_quota_us))?;
            }
            None => {}
        }
        if let Some(dir) = &self.pids_dir {
            write(&dir.join("pids.max"), &limits.pids.to_string())?;
        }
        Ok(())
    }

    /// What it uses.
    pub fn meter(&self) -> &Meter {
        &self.meter
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

    /// SIGKILL to whatever runs in the groups. For what no pidfd leads to; opens files.
    pub fn kill(&self) {
        let _ = self.thaw();
        for directory in &self.directories {
            super::layout::kill_all(directory);
        }
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

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(CgroupError::new("write", path))
}

fn write_kept(file: &File, value: &[u8]) -> io::Result<()> {
    file.write_at(value, 0).map(drop)
}
