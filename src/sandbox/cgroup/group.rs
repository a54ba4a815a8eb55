//! The groups of one sandbox: made, limited, joined, frozen, removed. What it uses is read by [`Meter`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::meter::{Meter, open};
use super::{CgroupError, Controller, Layout, Limits};

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
    pub(super) memory: Option<(Kind, PathBuf)>,
    pub(super) cpu: Option<(Kind, PathBuf)>,
    pub(super) io_dir: Option<(Kind, PathBuf)>,
    pub(super) pids_dir: Option<PathBuf>,
    memory_event: Option<OwnedFd>,
    meter: Meter,
    freeze: Option<Kept>,
    /// As they were set last; `None`: not at all, or not as a whole.
    pub(super) limits: Mutex<Option<Limits>>,
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
        let memory_event = match place(Controller::Memory) {
            Some((Kind::V1, dir)) => watch_memory(&dir)?,
            _ => None,
        };
        Ok(Self {
            tasks,
            v2,
            memory: place(Controller::Memory),
            memory_event,
            cpu: place(Controller::Cpu),
            io_dir: place(Controller::Io),
            meter: Meter::open(layout, name)?,
            freeze: keep(Controller::Freezer, "freezer.state", "cgroup.freeze")?,
            pids_dir,
            directories,
            limits: Mutex::default(),
        })
    }

    /// As they are named below the project's own; empty where there are none.
    pub fn name(&self) -> &str {
        let name = self.directories.first().and_then(|directory| directory.file_name());
        name.and_then(std::ffi::OsStr::to_str).unwrap_or_default()
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

    /// Readable once the kernel found no memory for this group; only on v1, where it does not end the whole group by itself.
    pub fn take_memory_event(&mut self) -> Option<OwnedFd> {
        self.memory_event.take()
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

/// Has the kernel tell when this v1 group is out of memory (its memory.rst, "OOM Control").
fn watch_memory(dir: &Path) -> Result<Option<OwnedFd>, CgroupError> {
    let path = dir.join("cgroup.event_control");
    let Some(oom_control) = open(&dir.join("memory.oom_control"))?.filter(|_| path.exists()) else { return Ok(None) };
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|error| CgroupError::new("make an eventfd for", &path)(error.into()))?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), oom_control.as_raw_fd());
    super::write(&path, &line)?;
    Ok(Some(OwnedFd::from(event)))
}

fn write_kept(file: &File, value: &[u8]) -> io::Result<()> {
    file.write_at(value, 0).map(drop)
}
