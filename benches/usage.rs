//! Reading what a sandbox uses: `pread` on descriptors kept open, against opening, reading and closing each time; what the account of
//! one call costs, by its length; and what a look at a thousand sandboxes costs, which the worker takes once a second.

#![allow(clippy::print_stderr, reason = "a bench tells its figures")]

#[path = "harness/rows.rs"]
#[allow(dead_code, reason = "nothing is absent here")]
mod rows;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use faasd::sandbox::cgroup::{Group as SandboxGroup, Layout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Where the bench may make a group of its own, and files in it that hold one number or a few lines: v1, then v2.
const GROUPS: [(&str, &[&str]); 4] = [
    ("/sys/fs/cgroup/memory", &["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.stat"]),
    ("/sys/fs/cgroup/cpuacct", &["cpuacct.usage"]),
    ("/sys/fs/cgroup/pids", &["pids.current"]),
    ("/sys/fs/cgroup", &["memory.current", "memory.peak", "memory.stat", "cpu.stat", "pids.current"]),
];
const BUFFER_BYTES: usize = 8192;
const SANDBOXES: usize = 1000;
/// Looks at all of them that the figure is the mean of.
const LOOKS: u32 = 200;

/// A group that is gone when the bench ends.
struct Group(PathBuf);

impl Group {
    fn below(root: &str) -> io::Result<Self> {
        let path = Path::new(root).join(format!("faasd-bench-usage-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn usage_reads(criterion: &mut Criterion) {
    for (root, names) in GROUPS {
        let Ok(group) = Group::below(root) else { continue };
        for name in names {
            let path = group.0.join(name);
            if path.exists() {
                compare(criterion, name, &path);
            }
        }
    }
}

fn compare(criterion: &mut Criterion, name: &str, path: &Path) {
    let mut group = criterion.benchmark_group(name);
    let kept = File::open(path).expect("the group's file can be opened");
    let mut buffer = [0; BUFFER_BYTES];
    group.bench_function("kept descriptor", |bencher| {
        bencher.iter(|| black_box(kept.read_at(&mut buffer, 0).expect("it can be read")));
    });
    group.bench_function("open, read, close", |bencher| {
        bencher.iter(|| {
            let mut file = File::open(path).expect("it can be opened");
            black_box(file.read(&mut buffer).expect("it can be read"))
        });
    });
    group.finish();
}

/// Real groups of the project's own layout, gone with the value.
struct Groups {
    layout: Layout,
    groups: Vec<SandboxGroup>,
}

impl Groups {
    /// `None` where this machine lets us make none.
    fn make(count: usize) -> Option<Self> {
        let layout = Layout::prepare("faasd-bench", &std::process::id().to_string()).ok()?;
        let made = (0..count).map(|number| SandboxGroup::make(&layout, &number.to_string())).collect();
        let mut this = Self { layout, groups: Vec::new() };
        this.groups = Result::ok(made)?;
        Some(this)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.layout.remove();
    }
}

/// What is read for one call, from its begin to its end, by how long it took.
fn call_account(criterion: &mut Criterion) {
    let Some(groups) = Groups::make(1) else { return };
    let meter = groups.groups[0].meter();
    let last = meter.readings();
    let mut group = criterion.benchmark_group("account of a call");
    for (name, took_us) in [("under 1 ms", 100), ("1 ms", 1000), ("10 ms and more", 10_000)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                meter.begin_call();
                black_box((meter.readings_after(Duration::from_micros(took_us), &last), meter.peak(), meter.tasks()))
            });
        });
    }
    group.finish();
}

/// A look at every sandbox, as the worker's sampler takes it; printed as a part of one processor at the default interval.
fn look_at_all(criterion: &mut Criterion) {
    let Some(groups) = Groups::make(SANDBOXES) else { return };
    let look = || groups.groups.iter().map(|group| group.meter().sample().memory_bytes).sum::<u64>();
    criterion.bench_function("look at one sandbox", |bencher| {
        bencher.iter(|| black_box(groups.groups[0].meter().sample()));
    });
    criterion.bench_function("look at 1000 sandboxes", |bencher| bencher.iter(|| black_box(look())));
    let (begun, before) = (Instant::now(), thread_cpu());
    for _ in 0..LOOKS {
        black_box(look());
    }
    let (took, used) = (begun.elapsed() / LOOKS, (thread_cpu() - before) / LOOKS);
    let told = |figure: &str, value: f64, unit: &str| {
        let told = rows::Rows::of("usage").add(&format!("{SANDBOXES} sandboxes looked at once: {figure}"), value, unit);
        told.expect("rows can be written");
    };
    told("elapsed", took.as_secs_f64() * 1e3, "ms");
    told("processor time", used.as_secs_f64() * 1e3, "ms");
    told("of one processor, at once a second", used.as_secs_f64() * 100.0, "%");
}

/// Processor time of this thread, which others on the machine don't lengthen.
fn thread_cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_THREAD).expect("threads are accounted for");
    let micros = |time: TimeVal| Duration::from_micros(time.num_microseconds() as u64);
    micros(used.user_time()) + micros(used.system_time())
}

criterion_group!(benches, usage_reads, call_account, look_at_all);
criterion_main!(benches);
