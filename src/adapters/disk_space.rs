//! What statvfs(3) says of the file system that the data directory is on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::statvfs::statvfs;

use crate::domain::disk::{Room, room};
use crate::ports::disk::Disk;

pub struct DiskSpace {
    path: PathBuf,
    floor: u64,
    room: AtomicU8,
}

impl DiskSpace {
    /// `floor`: bytes that are to stay free; 0: none, and there is always room.
    pub fn new(path: &Path, floor: u64) -> Self {
        Self { path: path.to_owned(), floor, room: AtomicU8::new(Room::Ample as u8) }
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Looks now: the bytes that are available to a daemon without privileges, and the room that this is.
    pub fn look(&self) -> io::Result<(u64, Room)> {
        let found = statvfs(&self.path)?;
        let available = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
        let now = room(available, self.floor, self.room());
        self.room.store(now as u8, Ordering::Relaxed);
        Ok((available, now))
    }
}

impl Disk for DiskSpace {
    fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Low,
            _ => Room::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_seen_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (available, room) = DiskSpace::new(dir.path(), 0).look().unwrap();
        assert_eq!((available > 0, room), (true, Room::Ample));
        let disk = DiskSpace::new(dir.path(), available.saturating_mul(2));
        assert_eq!(disk.room(), Room::Ample, "nobody has looked yet");
        assert_eq!(disk.look().unwrap().1, Room::Full);
        assert_eq!(disk.room(), Room::Full);
        assert!(DiskSpace::new(&dir.path().join("gone"), 0).look().is_err());
    }
}
