//! What no room counts: the process, the machine below it, and which build this is. Read when somebody asks, not before.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, CounterVec, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

use crate::sandbox::LinuxSandboxes;
use crate::sandbox::cgroup::pressure;

const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// All of it, as one collector: one look serves a whole scrape.
struct Surroundings {
    /// `None` at a node that runs nothing.
    sandboxes: Option<Arc<LinuxSandboxes>>,
    ticks_per_second: f64,
    page_bytes: u64,
    /// Two scrapes at once must not add the same difference twice.
    looking: Mutex<()>,
    build: IntGaugeVec,
    started: Gauge,
    cpu: Counter,
    resident: IntGauge,
    threads: IntGauge,
    open_files: IntGauge,
    open_files_max: IntGauge,
    steal: Counter,
    available: IntGauge,
    pressure: CounterVec,
    launcher_restarts: Counter,
}

/// Registers the node's own metrics.
pub(super) fn register(
    registry: &Registry,
    sandboxes: Option<Arc<LinuxSandboxes>>,
    role: &'static str,
) -> prometheus::Result<()> {
    let metrics = Surroundings::new(sandboxes)?;
    let cgroups = metrics.sandboxes.as_ref().map_or("none", |sandboxes| sandboxes.cgroups());
    metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION"), role, cgroups]).set(1);
    registry.register(Box::new(metrics))
}

impl Surroundings {
    fn new(sandboxes: Option<Arc<LinuxSandboxes>>) -> prometheus::Result<Self> {
        let setting = |name: SysconfVar| sysconf(name).ok().flatten().unwrap_or(0);
        let pressure = Opts::new("faasd_machine_pressure_seconds_total", "Time that processes of this machine waited.");
        let build = Opts::new("faasd_build_info", "1, with what runs here as labels.");
        let metrics = Self {
            ticks_per_second: setting(SysconfVar::CLK_TCK).max(1) as f64,
            page_bytes: setting(SysconfVar::PAGE_SIZE) as u64,
            looking: Mutex::default(),
            build: IntGaugeVec::new(build, &["version", "role", "cgroups"])?,
            started: Gauge::new("faasd_process_start_time_seconds", "When the daemon started, since 1970.")?,
            cpu: Counter::new("faasd_process_cpu_seconds_total", "Processor time of the daemon.")?,
            resident: IntGauge::new("faasd_process_resident_memory_bytes", "Memory of the daemon.")?,
            threads: IntGauge::new("faasd_process_threads", "Threads of the daemon.")?,
            open_files: IntGauge::new("faasd_process_open_fds", "File descriptors that the daemon has open.")?,
            open_files_max: IntGauge::new("faasd_process_max_fds", "File descriptors that it may have open.")?,
            steal: Counter::new("faasd_machine_cpu_steal_seconds_total", "Time taken by other virtual machines.")?,
            available: IntGauge::new("faasd_machine_memory_available_bytes", "Memory that could be used now.")?,
            pressure: CounterVec::new(pressure, &["resource", "kind"])?,
            launcher_restarts: Counter::new(
                "faasd_sandbox_launcher_restarts_total",
                "Launchers started because the one before died.",
            )?,
            sandboxes,
        };
        if let (Some(stat), Some(booted)) = (Stat::of_self(), boot_seconds(&read("/proc/stat"))) {
            metrics.started.set(booted + stat.started_ticks / metrics.ticks_per_second);
        }
        Ok(metrics)
    }

    fn members(&self) -> [&dyn Collector; 11] {
        [
            &self.build,
            &self.started,
            &self.cpu,
            &self.resident,
            &self.threads,
            &self.open_files,
            &self.open_files_max,
            &self.steal,
            &self.available,
            &self.pressure,
            &self.launcher_restarts,
        ]
    }

    /// What can't be read stays as it was.
    fn look(&self) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stat) = Stat::of_self() {
            raise(&self.cpu, stat.cpu_ticks / self.ticks_per_second);
            self.threads.set(stat.threads);
        }
        if let Some(pages) = word(&read("/proc/self/statm"), 1) {
            self.resident.set((pages as u64 * self.page_bytes) as i64);
        }
        self.open_files.set(open_files() as i64);
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.open_files_max.set(soft.min(i64::MAX as u64) as i64);
        }
        if let Some(ticks) = steal_ticks(&read("/proc/stat")) {
            raise(&self.steal, ticks / self.ticks_per_second);
        }
        if let Some(bytes) = available_bytes(&read("/proc/meminfo")) {
            self.available.set(bytes);
        }
        for resource in RESOURCES {
            let text = read(&format!("/proc/pressure/{resource}"));
            for kind in ["some", "full"] {
                if let Some(us) = pressure::total_us(&text, kind) {
                    raise(&self.pressure.with_label_values(&[resource, kind]), us as f64 / 1e6);
                }
            }
        }
        if let Some(sandboxes) = &self.sandboxes {
            raise(&self.launcher_restarts, sandboxes.launcher_restarts() as f64);
        }
    }
}

impl Collector for Surroundings {
    fn desc(&self) -> Vec<&Desc> {
        self.members().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.members().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Empty where there is no such file.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Brings a counter up to what somebody else counts.
fn raise(counter: &Counter, to: f64) {
    let more = to - counter.get();
    if more > 0.0 {
        counter.inc_by(more);
    }
}

fn word(text: &str, at: usize) -> Option<f64> {
    text.split_whitespace().nth(at)?.parse().ok()
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: i64,
    /// Since the machine booted.
    started_ticks: f64,
}

impl Stat {
    fn of_self() -> Option<Self> {
        Self::parse(&read("/proc/self/stat"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, so fields are counted behind its last parenthesis; the first there is the third of all.
        let fields = text.rsplit_once(')')?.1;
        let field = |number: usize| word(fields, number - 3);
        Some(Self { cpu_ticks: field(14)? + field(15)?, threads: field(20)? as i64, started_ticks: field(22)? })
    }
}

/// From `/proc/stat`.
fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Of all processors together, from `/proc/stat`.
fn steal_ticks(stat: &str) -> Option<f64> {
    word(stat.lines().find(|line| line.starts_with("cpu "))?, 8)
}

/// From `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Since Linux 6.2 the directory's size says how many there are; counting thousands of entries takes a while.
fn open_files() -> u64 {
    let told = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    if told > 0 { told } else { fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 9 18 4711 20";
        assert_eq!(Stat::parse(stat), Some(Stat { cpu_ticks: 200.0, threads: 9, started_ticks: 4711.0 }));
        assert_eq!(Stat::parse("nothing"), None);
        let stat = "cpu  1 2 3 4 5 6 7 88 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\nbtime 1700000000\n";
        assert_eq!((steal_ticks(stat), boot_seconds(stat)), (Some(88.0), Some(1_700_000_000.0)));
        assert_eq!(available_bytes("MemFree: 1 kB\nMemAvailable:  2 kB\n"), Some(2048));
        assert_eq!((steal_ticks(""), boot_seconds(""), available_bytes("")), (None, None, None));
    }

    #[test]
    fn this_process_is_seen() {
        let stat = Stat::of_self().expect("there is /proc");
        assert!(stat.threads >= 1 && stat.started_ticks > 0.0, "{stat:?}");
        assert!(open_files() >= 3, "the standard streams at least");
    }

    #[test]
    fn a_counter_only_rises() {
        let counter = Counter::new("c", "c").unwrap();
        for (told, shown) in [(2.0, 2.0), (1.0, 2.0), (3.5, 3.5)] {
            raise(&counter, told);
            assert_eq!(counter.get(), shown);
        }
    }
}
