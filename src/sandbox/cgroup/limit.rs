//! What the groups of a sandbox allow, in the words of v1 and of v2.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;

use super::group::Kind;
use super::{CgroupError, Group, write};

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

/// How fast a sandbox may read from and write to one block device. 0: no ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimits {
    pub device: Device,
    pub read_bytes_per_s: u64,
    pub write_bytes_per_s: u64,
    /// Reads, and as many writes.
    pub operations_per_s: u64,
}

/// A whole block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub major: u64,
    pub minor: u64,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Device {
    /// The device that holds `path`; of a partition, the disk: limits are per disk. `None` where the file system has no device
    /// of its own (overlay, tmpfs, network).
    pub fn holding(path: &Path) -> Option<Self> {
        let dev = fs::metadata(path).ok()?.dev();
        let (major, minor) = (libc::major(dev), libc::minor(dev));
        let place = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        let disk = if place.join("partition").exists() { place.parent()? } else { &place };
        Self::parse(fs::read_to_string(disk.join("dev")).ok()?.trim())
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's own default: one processor's worth.
const HURRIED_SHARES: u64 = 1024;

impl Group {
    /// Sets or changes the limits; what is as it was is not written. No swap beyond the memory.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.take();
        let differs = |of: fn(&Limits) -> u64| before.as_ref().is_none_or(|before| of(before) != of(limits));
        if differs(|limits| limits.memory_bytes) {
            self.limit_memory(limits.memory_bytes, before.is_none())?;
        }
        if differs(|limits| limits.cpu_shares) {
            match &self.cpu {
                Some((Kind::V1, dir)) => {
                    write(&dir.join("cpu.shares"), &limits.cpu_shares.clamp(2, 262_144).to_string())?;
                }
                Some((Kind::V2, dir)) => {
                    write(&dir.join("cpu.weight"), &(limits.cpu_shares * 100 / 1024).clamp(1, 10_000).to_string())?;
                }
                None => {}
            }
        }
        if differs(|limits| limits.cpu_quota_us) {
            match &self.cpu {
                Some((Kind::V1, dir)) => {
                    write_if_there(&dir.join("cpu.cfs_quota_us"), &limits.cpu_quota_us.to_string())?
                }
                Some((Kind::V2, dir)) => {
                    write(&dir.join("cpu.max"), &format!("{} {CPU_PERIOD_US}", limits.cpu_quota_us))?;
                }
                None => {}
            }
        }
        if let Some(dir) = self.pids_dir.as_ref().filter(|_| differs(|limits| limits.pids.into())) {
            write(&dir.join("pids.max"), &limits.pids.to_string())?;
        }
        *known = Some(*limits);
        Ok(())
    }

    fn limit_memory(&self, bytes: u64, is_first: bool) -> Result<(), CgroupError> {
        match &self.memory {
            Some((Kind::V1, dir)) => limit_memory_v1(dir, bytes),
            Some((Kind::V2, dir)) => {
                write(&dir.join("memory.max"), &bytes.to_string())?;
                if is_first {
                    // Whole or not at all: half a function is no function.
                    write(&dir.join("memory.oom.group"), "1")?;
                    write_if_there(&dir.join("memory.swap.max"), "0")?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the bounds on the processor away, for what has only its own end left to do.
    pub fn hurry(&self) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What can't be written changes nothing but the time that it takes.
        let _ = match &self.cpu {
            Some((Kind::V1, dir)) => write(&dir.join("cpu.shares"), &HURRIED_SHARES.to_string())
                .and_then(|()| write(&dir.join("cpu.cfs_quota_us"), "-1")),
            Some((Kind::V2, dir)) => {
                write(&dir.join("cpu.weight"), "100").and_then(|()| write(&dir.join("cpu.max"), "max"))
            }
            None => Ok(()),
        };
    }

    /// Sets ceilings on I/O; nothing where no controller is in charge of it. Without them every sandbox has the kernel's default
    /// weight, the same for all.
    pub fn limit_io(&self, limits: &IoLimits) -> Result<(), CgroupError> {
        let IoLimits { device, read_bytes_per_s, write_bytes_per_s, operations_per_s } = *limits;
        let ceilings = [
            ("rbps", "read_bps_device", read_bytes_per_s),
            ("wbps", "write_bps_device", write_bytes_per_s),
            ("riops", "read_iops_device", operations_per_s),
            ("wiops", "write_iops_device", operations_per_s),
        ];
        let ceilings = ceilings.into_iter().filter(|(_, _, value)| *value > 0);
        match &self.io_dir {
            Some((Kind::V1, dir)) => {
                for (_, file, value) in ceilings {
                    write(&dir.join(format!("blkio.throttle.{file}")), &format!("{device} {value}"))?;
                }
            }
            Some((Kind::V2, dir)) => {
                let line = ceilings.fold(device.to_string(), |line, (key, _, value)| format!("{line} {key}={value}"));
                write(&dir.join("io.max"), &line)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// `false`: this kernel has no such file.
fn try_write(path: &Path, value: &str) -> Result<bool, CgroupError> {
    let opened = OpenOptions::new().write(true).truncate(true).open(path);
    match opened.and_then(|mut file| file.write_all(value.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CgroupError::new("write", path)(error)),
    }
}

fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    try_write(path, value).map(drop)
}

fn limit_memory_v1(dir: &Path, bytes: u64) -> Result<(), CgroupError> {
    let bytes = bytes.to_string();
    let (plain, with_swap) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    // The limit with swap may never be below the one without: whichever order is allowed now works.
    let lowered = write(&plain, &bytes);
    let has_swap = try_write(&with_swap, &bytes)?;
    if lowered.is_err() {
        write(&plain, &bytes)?;
    }
    if !has_swap {
        write_if_there(&dir.join("memory.swappiness"), "0")?;
    }
    // v1 does not count the buffers of network sockets with the rest, and loopback has them too.
    write_if_there(&dir.join("memory.kmem.tcp.limit_in_bytes"), &bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Controller, Layout};
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 128 << 20, cpu_shares: 74, cpu_quota_us: 100_000, pids: 128 };
    const IO: IoLimits = IoLimits {
        device: Device { major: 254, minor: 0 },
        read_bytes_per_s: 1000,
        write_bytes_per_s: 0,
        operations_per_s: 50,
    };

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A directory tree in the place of the kernel's: what is written can be read there.
    #[test]
    fn a_v2_group_is_limited_in_one_place() {
        let tree = tempfile::tempdir().unwrap();
        let layout = Layout { v2: Some(tree.path().into()), on_v2: Controller::ALL.to_vec(), v1: BTreeMap::new() };
        let dir = tree.path().join("one");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("memory.swap.max"), "max").unwrap();
        let mut group = Group::make(&layout, "one").unwrap();
        group.limit(&LIMITS).unwrap();
        group.limit_io(&IO).unwrap();
        for (file, value) in [
            ("memory.max", "134217728"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),
            ("cpu.weight", "7"),
            ("cpu.max", "100000 100000"),
            ("pids.max", "128"),
            ("io.max", "254:0 rbps=1000 riops=50 wiops=50"),
        ] {
            assert_eq!(read(&dir.join(file)), value, "{file}");
        }
        group.hurry();
        assert_eq!([read(&dir.join("cpu.weight")), read(&dir.join("cpu.max"))], ["100", "max"]);
        assert!(group.take_memory_event().is_none(), "the kernel ends the whole group by itself");
    }

    #[test]
    fn v1_groups_are_limited_each_in_its_own() {
        let tree = tempfile::tempdir().unwrap();
        let parents: BTreeMap<_, _> =
            Controller::ALL.into_iter().map(|of| (of, tree.path().join(format!("{of:?}")))).collect();
        for parent in parents.values() {
            fs::create_dir_all(parent.join("one")).unwrap();
            fs::write(parent.join("one/tasks"), "").unwrap();
        }
        let [memory, cpu, pids, io] =
            [Controller::Memory, Controller::Cpu, Controller::Pids, Controller::Io].map(|of| parents[&of].join("one"));
        for (dir, file) in [
            (&memory, "memory.memsw.limit_in_bytes"),
            (&memory, "memory.kmem.tcp.limit_in_bytes"),
            (&cpu, "cpu.cfs_quota_us"),
        ] {
            fs::write(dir.join(file), "-1").unwrap();
        }
        let group = Group::make(&Layout { v2: None, on_v2: Vec::new(), v1: parents }, "one").unwrap();
        group.limit(&LIMITS).unwrap();
        group.limit_io(&IO).unwrap();
        for (dir, file, value) in [
            (&memory, "memory.limit_in_bytes", "134217728"),
            (&memory, "memory.memsw.limit_in_bytes", "134217728"),
            (&memory, "memory.kmem.tcp.limit_in_bytes", "134217728"),
            (&cpu, "cpu.shares", "74"),
            (&cpu, "cpu.cfs_quota_us", "100000"),
            (&pids, "pids.max", "128"),
            (&io, "blkio.throttle.read_bps_device", "254:0 1000"),
            (&io, "blkio.throttle.read_iops_device", "254:0 50"),
        ] {
            assert_eq!(read(&dir.join(file)), value, "{file}");
        }
        assert!(!io.join("blkio.throttle.write_bps_device").exists(), "no ceiling was asked for");
    }

    #[test]
    fn where_swap_is_not_counted_none_is_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.swappiness"), "60").unwrap();
        limit_memory_v1(dir.path(), 1 << 20).unwrap();
        assert_eq!(read(&dir.path().join("memory.swappiness")), "0");
    }

    #[test]
    fn devices_are_read() {
        assert_eq!(Device::parse("254:16"), Some(Device { major: 254, minor: 16 }));
        assert_eq!(Device::parse("254"), None);
    }
}
