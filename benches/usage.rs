//! Reading what a sandbox uses: `pread` on descriptors kept open, against opening, reading and closing each time. One call reads
//! three such files, so the difference is in every call.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};

/// Where the bench may make a group of its own, and files in it that hold one number or a few lines: v1, then v2.
const GROUPS: [(&str, &[&str]); 4] = [
    ("/sys/fs/cgroup/memory", &["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.stat"]),
    ("/sys/fs/cgroup/cpuacct", &["cpuacct.usage"]),
    ("/sys/fs/cgroup/pids", &["pids.current"]),
    ("/sys/fs/cgroup", &["memory.current", "memory.peak", "memory.stat", "cpu.stat", "pids.current"]),
];
const BUFFER_BYTES: usize = 8192;

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

criterion_group!(benches, usage_reads);
criterion_main!(benches);
