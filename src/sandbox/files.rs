//! Files that a function left in `/output`: taken out through a directory descriptor, links never followed, bounds kept.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::launcher::protocol::Scratch;
use crate::domain::limits::KIB;

/// Directories deeper than this are left.
const DEPTH_MAX: usize = 16;
/// Files and directories looked at after one call, to be taken or removed: a thread of the daemon's does it. The rest is left.
const ENTRIES_MAX: usize = 4096;

/// Bounds of what is taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub files: usize,
    pub bytes: u64,
}

/// Opens `/output` of the sandbox whose first process is `pid`.
///
/// The caller makes sure, by its pidfd, that the process still lives afterwards, so that the pid was not another's.
pub fn open_output(pid: i32) -> io::Result<Output> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(format!("/proc/{pid}/root").as_str(), flags | OFlag::O_PATH, Mode::empty())?;
    Output::new(openat(root, "output", flags | OFlag::O_NOFOLLOW, Mode::empty())?)
}

/// Inodes of the tmpfs per so many bytes of it: at about 1 KiB of kernel memory each, charged to the sandbox like its pages, they
/// take a sixteenth of its size at most.
const BYTES_PER_INODE: u64 = 16 * KIB;
const INODES_MIN: u64 = 1024;
const INODES_MAX: u64 = 65_536;

/// The size that lets a file system hold so many bytes, and files in proportion.
pub fn scratch(bytes: u64) -> Scratch {
    Scratch { bytes, inodes: (bytes / BYTES_PER_INODE).clamp(INODES_MIN, INODES_MAX) }
}

/// A sandbox's `/output`, on the file system that its `/tmp` is on too.
pub struct Output {
    directory: OwnedFd,
    /// What an empty directory's size is here: tmpfs counts entries in it, `.` and `..` perhaps among them.
    empty_bytes: i64,
}

impl Output {
    /// Takes a directory that is empty now.
    pub fn new(directory: OwnedFd) -> io::Result<Self> {
        let empty_bytes = fstat(&directory)?.st_size;
        Ok(Self { directory, empty_bytes })
    }

    /// A descriptor by which whoever is privileged in a mount namespace of its own, as the launcher is, can size the file system.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.directory.try_clone()
    }

    /// Whether there is nothing to take: one system call, for the path that every call goes.
    pub fn is_empty(&self) -> bool {
        fstat(&self.directory).is_ok_and(|stat| stat.st_size == self.empty_bytes)
    }

    /// Takes regular files out, path below `/output` and contents, and removes whatever is there. What does not fit the bounds is
    /// dropped. Where there is more than is looked at, it is not empty afterwards: end the sandbox.
    pub fn take(&self, bounds: Bounds) -> Vec<(String, Bytes)> {
        let mut taken = Taken { bounds, files: Vec::new(), entries_left: ENTRIES_MAX };
        let _ = taken.empty(&self.directory, Path::new(""), 0);
        taken.files
    }
}

struct Taken {
    bounds: Bounds,
    files: Vec<(String, Bytes)>,
    entries_left: usize,
}

impl Taken {
    fn empty(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> nix::Result<()> {
        // A descriptor of its own, since reading a directory moves its position.
        let mut listing = Dir::openat(directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let entries = listing.iter().flatten().filter(|entry| ![c".", c".."].contains(&entry.file_name()));
        let entries: Vec<_> = entries.take(self.entries_left).collect();
        self.entries_left -= entries.len();
        for entry in entries {
            let name = entry.file_name();
            let below = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            let kind = entry.file_type().or_else(|| {
                let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
                (stat.st_mode & libc::S_IFMT == libc::S_IFDIR).then_some(Type::Directory)
            });
            if kind == Some(Type::Directory) {
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                if let (true, Ok(inner)) = (depth < DEPTH_MAX, openat(directory, name, flags, Mode::empty())) {
                    let _ = self.empty(&inner, &below, depth + 1);
                }
                let _ = unlinkat(directory, name, UnlinkatFlags::RemoveDir);
            } else {
                if kind == Some(Type::File) {
                    self.read(directory, name, &below);
                }
                let _ = unlinkat(directory, name, UnlinkatFlags::NoRemoveDir);
            }
        }
        Ok(())
    }

    fn read(&mut self, directory: &OwnedFd, name: &std::ffi::CStr, path: &Path) {
        let left = self.bounds.bytes - self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        // Nonblocking: what was a file when listed may be a pipe by now.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(fd) = openat(directory, name, flags, Mode::empty()) else { return };
        let is_file = fstat(fd.as_fd())
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_size as u64 <= left);
        if !is_file || self.files.len() >= self.bounds.files {
            return;
        }
        let mut bytes = Vec::new();
        let read = File::from(fd).take(left + 1).read_to_end(&mut bytes);
        if read.is_ok() && bytes.len() as u64 <= left {
            self.files.push((path.to_string_lossy().into_owned(), bytes.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn more_than_is_looked_at_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(OwnedFd::from(File::open(dir.path()).unwrap())).unwrap();
        for n in 0..ENTRIES_MAX + 10 {
            File::create(dir.path().join(n.to_string())).unwrap();
        }
        assert_eq!(output.take(Bounds { files: 3, bytes: 1000 }).len(), 3);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 10);
    }

    #[test]
    fn files_are_taken_links_are_not_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), "A").unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/b.txt"), "BB").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("large"), vec![0; 2000]).unwrap();
        let output = Output::new(OwnedFd::from(File::open(dir.path()).unwrap())).unwrap();
        let mut taken = output.take(Bounds { files: 10, bytes: 1000 });
        taken.sort();
        let names: Vec<_> = taken.iter().map(|(name, bytes)| (name.as_str(), bytes.len())).collect();
        assert_eq!(names, [("a.txt", 1), ("deep/b.txt", 2)]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
