//! What a sandbox uses, read with `pread` from descriptors that are kept open as long as its groups live.
//!
//! Counters only grow, so a call's part is the difference between two readings. What one reading leaves out, because the call was
//! too short to be worth the read, is in the next one's difference: the sum over all calls is the group's total.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::layout::{Controller, Layout};
use super::{CgroupError, pressure};
use crate::ports::usage::Sample;

/// A call that returned in less did too little I/O and was held back too little to be worth the reads.
const BRIEF: Duration = Duration::from_millis(1);
/// Pressure files cost the kernel a sum over all processors: a shorter call waits too little to be worth that.
const LONG: Duration = Duration::from_millis(10);
/// `io.stat` and `blkio.throttle.*` have a few lines for each disk: this holds more than thirty disks.
const TEXT_BYTES: usize = 4096;

/// Counters as they stand; differences between two readings are one call's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    pub cpu_us: u64,
    pub throttled_us: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub oom_kills: u64,
    /// `None`: this kernel keeps no account of it for each group.
    pub pressure: Option<pressure::Stalls>,
}

/// The highest memory use of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    pub bytes: u64,
    /// Seen in samples only: the truth is at least this.
    pub sampled: bool,
}

/// Processor time used, and time held back by the quota.
#[derive(Debug, Default)]
enum Cpu {
    V1 {
        usage: Option<File>,
        stat: Option<File>,
    },
    /// `cpu.stat` has both.
    V2(File),
    #[default]
    Unknown,
}

#[derive(Debug)]
enum Io {
    V1(File),
    V2(File),
}

/// How the peak of a call is come by.
#[derive(Debug, Default)]
enum PeakFile {
    /// Writing to the descriptor starts it anew (v1; v2 from Linux 6.12 on, there for this descriptor alone).
    Resettable(File),
    /// The peak of the group's life (v2, Linux 5.19 to 6.11), as it was when the call began.
    OfLife { file: File, before: AtomicU64 },
    #[default]
    Unknown,
}

/// Kept descriptors of one sandbox's groups.
#[derive(Debug, Default)]
pub struct Meter {
    memory: Option<File>,
    peak: PeakFile,
    /// Highest of the samples since the call began, where the kernel's own peak can't be reset.
    highest_sample: AtomicU64,
    oom: Option<File>,
    cpu: Cpu,
    io: Option<Io>,
    tasks: Option<File>,
    pressure: Option<pressure::Files>,
}

impl Meter {
    /// Opens the files of the groups `name`, which must have been made.
    pub fn open(layout: &Layout, name: &str) -> Result<Self, CgroupError> {
        let v1 = |controller: Controller, file: &str| -> Result<Option<File>, CgroupError> {
            match layout.v1.get(&controller) {
                Some(parent) if !layout.on_v2.contains(&controller) => open(&parent.join(name).join(file)),
                _ => Ok(None),
            }
        };
        let v2 = |controller: Controller, file: &str| -> Result<Option<File>, CgroupError> {
            match &layout.v2 {
                Some(parent) if layout.on_v2.contains(&controller) => open(&parent.join(name).join(file)),
                _ => Ok(None),
            }
        };
        let either = |controller, v1_file: &str, v2_file: &str| -> Result<Option<File>, CgroupError> {
            Ok(match v2(controller, v2_file)? {
                Some(file) => Some(file),
                None => v1(controller, v1_file)?,
            })
        };
        let cpu = match v2(Controller::CpuAccounting, "cpu.stat")? {
            Some(file) => Cpu::V2(file),
            None => Cpu::V1 {
                usage: v1(Controller::CpuAccounting, "cpuacct.usage")?,
                stat: v1(Controller::Cpu, "cpu.stat")?,
            },
        };
        let io = match v2(Controller::Io, "io.stat")? {
            Some(file) => Some(Io::V2(file)),
            None => v1(Controller::Io, "blkio.throttle.io_service_bytes")?.map(Io::V1),
        };
        let pressure = layout.v2.as_ref().and_then(|parent| pressure::Files::open(&parent.join(name)));
        Ok(Self {
            memory: either(Controller::Memory, "memory.usage_in_bytes", "memory.current")?,
            peak: either(Controller::Memory, "memory.max_usage_in_bytes", "memory.peak")?
                .map_or(PeakFile::Unknown, PeakFile::of),
            highest_sample: AtomicU64::new(0),
            oom: either(Controller::Memory, "memory.oom_control", "memory.events")?,
            cpu,
            io,
            tasks: either(Controller::Pids, "pids.current", "pids.current")?,
            pressure,
        })
    }

    /// Forgets the peak so far, so that [`Meter::peak`] speaks of what comes.
    pub fn begin_call(&self) {
        match &self.peak {
            PeakFile::Resettable(file) => {
                // It could be written when it was opened; if not now, the peak is too high rather than too low.
                let _ = file.write_at(b"0", 0);
            }
            PeakFile::OfLife { file, before } => {
                before.store(number(file).unwrap_or(0), Ordering::Relaxed);
                self.highest_sample.store(self.memory_bytes().unwrap_or(0), Ordering::Relaxed);
            }
            PeakFile::Unknown => self.highest_sample.store(self.memory_bytes().unwrap_or(0), Ordering::Relaxed),
        }
    }

    /// Whether the peak of a call is known only as well as [`Meter::sample_peak`] is called often.
    pub fn wants_samples(&self) -> bool {
        self.memory.is_some() && !matches!(self.peak, PeakFile::Resettable(_))
    }

    /// Looks at the memory in use, for the peak of the call under way.
    pub fn sample_peak(&self) {
        if let Some(bytes) = self.memory_bytes() {
            self.highest_sample.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Highest memory use since [`Meter::begin_call`].
    pub fn peak(&self) -> Peak {
        match &self.peak {
            PeakFile::Resettable(file) => Peak { bytes: number(file).unwrap_or(0), sampled: false },
            PeakFile::OfLife { file, before } => {
                let (before, after) = (before.load(Ordering::Relaxed), number(file).unwrap_or(0));
                if after > before {
                    // It was higher than ever: the kernel's own number is this call's.
                    return Peak { bytes: after, sampled: false };
                }
                self.sampled_peak()
            }
            PeakFile::Unknown => self.sampled_peak(),
        }
    }

    fn sampled_peak(&self) -> Peak {
        self.sample_peak();
        Peak { bytes: self.highest_sample.load(Ordering::Relaxed), sampled: self.memory.is_some() }
    }

    /// Memory charged now.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory.as_ref().and_then(number)
    }

    /// What is in use at this moment; what nobody counts here is 0.
    pub fn sample(&self) -> Sample {
        let memory_bytes = self.memory_bytes().unwrap_or(0);
        if self.wants_samples() {
            self.highest_sample.fetch_max(memory_bytes, Ordering::Relaxed);
        }
        Sample { memory_bytes, cpu_us: self.cpu_us(), tasks: self.tasks().unwrap_or(0) }
    }

    /// Processor time used so far. A process that runs at this moment is counted up to the last tick of its processor.
    pub fn cpu_us(&self) -> u64 {
        match &self.cpu {
            Cpu::V1 { usage, .. } => usage.as_ref().and_then(number).unwrap_or(0) / 1000,
            Cpu::V2(file) => keyed(text(file, &mut [0; 1024]), "usage_usec"),
            Cpu::Unknown => 0,
        }
    }

    /// As much as a call of this length is worth; the rest as it stood in `last`.
    pub fn readings_after(&self, took: Duration, last: &Readings) -> Readings {
        if took < BRIEF {
            return Readings { cpu_us: self.cpu_us(), ..*last };
        }
        let pressure = if took < LONG { last.pressure } else { self.pressure() };
        Readings { pressure, ..self.counters() }
    }

    /// All of it.
    pub fn readings(&self) -> Readings {
        Readings { pressure: self.pressure(), ..self.counters() }
    }

    fn counters(&self) -> Readings {
        let mut buffer = [0; TEXT_BYTES];
        let mut readings = Readings::default();
        match &self.cpu {
            Cpu::V1 { stat, .. } => {
                readings.cpu_us = self.cpu_us();
                let stat = stat.as_ref().map(|file| text(file, &mut buffer));
                readings.throttled_us = stat.map_or(0, |stat| keyed(stat, "throttled_time")) / 1000;
            }
            Cpu::V2(file) => {
                let stat = text(file, &mut buffer);
                readings.cpu_us = keyed(stat, "usage_usec");
                readings.throttled_us = keyed(stat, "throttled_usec");
            }
            Cpu::Unknown => {}
        }
        (readings.read_bytes, readings.write_bytes) = match &self.io {
            Some(Io::V1(file)) => io_v1(text(file, &mut buffer)),
            Some(Io::V2(file)) => io_v2(text(file, &mut buffer)),
            None => (0, 0),
        };
        readings.oom_kills = self.oom_kills();
        readings
    }

    fn pressure(&self) -> Option<pressure::Stalls> {
        self.pressure.as_ref().map(pressure::Files::read)
    }

    /// Processes of these groups that the kernel killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let mut buffer = [0; 512];
        self.oom.as_ref().map_or(0, |file| keyed(text(file, &mut buffer), "oom_kill"))
    }

    /// Processes and threads alive; `None` where nobody counts.
    pub fn tasks(&self) -> Option<u64> {
        self.tasks.as_ref().and_then(number)
    }
}

impl PeakFile {
    fn of(file: File) -> Self {
        match file.write_at(b"0", 0) {
            Ok(_) => Self::Resettable(file),
            Err(_) => Self::OfLife { file, before: AtomicU64::new(0) },
        }
    }
}

/// Opens for reading and, where the file allows it, writing; `None` if this kernel has no such file.
pub(super) fn open(path: &Path) -> Result<Option<File>, CgroupError> {
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

/// What a kept file says now, as far as it fits; empty when it can't be read or is no text.
pub(super) fn text<'a>(file: &File, buffer: &'a mut [u8]) -> &'a str {
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

    /// A directory that plays a group's, with a file to change.
    fn file(dir: &tempfile::TempDir, name: &str, contents: &str) -> File {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        File::open(path).unwrap()
    }

    /// A kernel that keeps the peak of the group's life only: Linux 6.1 with v2.
    #[test]
    fn a_peak_that_can_not_be_reset_is_exact_when_it_rises_and_sampled_when_not() {
        let dir = tempfile::tempdir().unwrap();
        let (peak, memory) = (file(&dir, "memory.peak", "100\n"), file(&dir, "memory.current", "40\n"));
        let set = |name: &str, value: &str| std::fs::write(dir.path().join(name), value).unwrap();
        // It is open for reading alone, so the reset fails as it does on such a kernel.
        let meter = Meter { peak: PeakFile::of(peak), memory: Some(memory), ..Meter::default() };
        assert!(meter.wants_samples());

        meter.begin_call();
        set("memory.peak", "250\n");
        assert_eq!(meter.peak(), Peak { bytes: 250, sampled: false }, "higher than ever");

        meter.begin_call();
        set("memory.current", "70\n");
        meter.sample_peak();
        set("memory.current", "50\n");
        assert_eq!(meter.peak(), Peak { bytes: 70, sampled: true }, "the highest sample");

        meter.begin_call();
        assert_eq!(meter.peak(), Peak { bytes: 50, sampled: true }, "nothing of the call before");
    }

    #[test]
    fn short_calls_leave_to_the_next_what_they_do_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let usage = file(&dir, "cpuacct.usage", "5000000\n");
        let stat = file(&dir, "cpu.stat", "nr_throttled 1\nthrottled_time 9000\n");
        let io = file(&dir, "io", "8:0 Read 10\n8:0 Write 20\n");
        let cpu = Cpu::V1 { usage: Some(usage), stat: Some(stat) };
        let meter = Meter { cpu, io: Some(Io::V1(io)), ..Meter::default() };
        let before = Readings::default();
        let brief = meter.readings_after(Duration::from_micros(500), &before);
        assert_eq!(brief, Readings { cpu_us: 5000, ..before });
        let next = meter.readings_after(Duration::from_millis(2), &brief);
        assert_eq!((next.cpu_us, next.throttled_us, next.read_bytes, next.write_bytes), (5000, 9, 10, 20));
        assert_eq!(next, meter.readings());
    }
}
