//! Has the kernel count what v1 groups read from and write to disks.
//!
//! Since Linux 6.10 the counters of `blkio.throttle.*` stay at 0 until somebody has set a limit on that disk (kernel commit
//! a3166c51702b, "blk-throttle: delay initialization until configuration"). The limit 0, which is none, is enough. On v2
//! `io.stat` counts always.

use std::fs;
use std::path::Path;

use super::layout::{Controller, Layout};

/// Block devices that are no disks: what goes through them is counted where it ends, or in memory.
const NOT_DISKS: [&str; 4] = ["loop", "ram", "zram", "nbd"];
/// Disks looked at; a machine with more has its data on few of them.
const DISKS_MAX: usize = 64;

/// Sets no limit on every disk of this machine. What can't be set leaves that disk's bytes uncounted.
pub fn count(layout: &Layout) {
    let Some(group) = layout.v1.get(&Controller::Io) else { return };
    let file = group.join("blkio.throttle.read_bps_device");
    for disk in disks(Path::new("/sys/block")) {
        if let Err(error) = fs::write(&file, format!("{disk} 0")) {
            tracing::debug!(disk, %error, "what sandboxes read from this disk is not counted");
        }
    }
}

/// `MAJ:MIN` of every disk.
fn disks(sys_block: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sys_block) else { return Vec::new() };
    let is_disk = |name: &str| !NOT_DISKS.iter().any(|other| name.starts_with(other));
    let disks = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_disk));
    let numbers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    numbers.map(|number| number.trim().to_owned()).take(DISKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_from_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for (name, number) in [("vda", "254:0\n"), ("loop0", "7:0\n"), ("zram0", "253:0\n"), ("nvme0n1", "259:0\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("dev"), number).unwrap();
        }
        let mut found = disks(dir.path());
        found.sort();
        assert_eq!(found, ["254:0", "259:0"]);
    }
}
