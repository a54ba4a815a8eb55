//! `/proc` of a sandbox: its own processes, what programs must know of the processor and the memory, and nothing else of the host's.
//!
//! The kernel's own way to leave all but processes out (`subset=pid`) takes `/proc/cpuinfo` and `/proc/meminfo` too, without which node counts
//! no processors and numeric libraries fail to start. So the rest is covered, entry by entry: what is in no list here, which includes
//! what newer kernels bring. Entries whose mode gives others no right at all (`kcore`, `kmsg`, …) need no cover: their owner is the host's root, whom no
//! sandbox has.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::template::{self, Step, StepError};

/// Shown as they are: programs read them, and they tell nothing that the processor or uname(2) and sysinfo(2) don't.
const SHOWN: [&str; 7] = ["cpuinfo", "meminfo", "filesystems", "version", "crypto", "execdomains", "sysvipc"];

/// Values below `/proc/sys` that programs read, as the host has them; all the others are absent.
const SYSCTLS: [&str; 12] = [
    "fs/file-max",
    "fs/nr_open",
    "fs/pipe-max-size",
    "kernel/cap_last_cap",
    "kernel/ngroups_max",
    "kernel/osrelease",
    "kernel/ostype",
    "kernel/pid_max",
    "net/core/somaxconn",
    "vm/max_map_count",
    "vm/mmap_min_addr",
    "vm/overcommit_memory",
];

/// Below the root: what covers are made of.
const COVERS: &str = "opt/faasd/proc";

/// One entry that is covered, both paths below the root.
pub struct Cover {
    from: PathBuf,
    over: PathBuf,
}

/// Writes what covers are made of into a root that is being built.
pub fn write_covers(root: &Path) -> Result<(), StepError> {
    let covers = root.join(COVERS);
    template::make_dir(&covers.join("directory"))?;
    template::make_dir(&covers.join("sys"))?;
    template::write(&covers.join("file"), "", 0o444)?;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    template::write(&covers.join("stat"), &idle(&stat), 0o444)?;
    template::write(&covers.join("loadavg"), "0.00 0.00 0.00 1/2 2\n", 0o444)?;
    for name in SYSCTLS {
        let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(name)) else { continue };
        let path = covers.join("sys").join(name);
        template::make_dir(path.parent().unwrap_or(&covers))?;
        template::write(&path, &value, 0o444)?;
    }
    Ok(())
}

/// `/proc/stat` with the processors there are, none of which has done anything since the epoch.
fn idle(stat: &str) -> String {
    let processors = stat.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with("cpu"));
    let lines: String = processors.map(|name| format!("{name} 0 0 0 0 0 0 0 0 0 0\n")).collect();
    format!("{lines}intr 0\nctxt 0\nbtime 0\nprocesses 2\nprocs_running 1\nprocs_blocked 0\n")
}

/// What has to be covered on this kernel, by the host's own `/proc`.
pub fn covers() -> io::Result<Vec<Cover>> {
    let mut covers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
        // An entry may go away, with its module.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        let is_closed = meta.permissions().mode() & 0o007 == 0;
        if is_process || meta.is_symlink() || is_closed || SHOWN.contains(&&*name) {
            continue;
        }
        let cover = match (&*name, meta.is_dir()) {
            ("sys" | "stat" | "loadavg", _) => &*name,
            (_, true) => "directory",
            (_, false) => "file",
        };
        covers.push(Cover { from: Path::new(COVERS).join(cover), over: Path::new(template::PROC).join(&*name) });
    }
    Ok(covers)
}

/// Mounts `/proc` of the caller's pid namespace, in the root that is the working directory.
pub fn mount_own(covers: &[Cover]) -> Result<(), StepError> {
    let none = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Processes of other users, the first one above all, are not there for the user (proc(5)).
    mount(Some("proc"), template::PROC, Some("proc"), flags, Some("hidepid=2")).step("mount /proc")?;
    for Cover { from, over } in covers {
        match mount(Some(from), over, none, MsFlags::MS_BIND, none) {
            // Gone since the launcher looked.
            Err(nix::errno::Errno::ENOENT) => {}
            covered => covered.step(format!("cover /{}", over.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_host_s_load_nothing_is_told() {
        let host = "cpu  1 2 3\ncpu0 1 2 3\ncpu1 4 5 6\nintr 99 1 2\nctxt 7\nbtime 1700000000\n";
        let told = idle(host);
        assert!(told.starts_with("cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 "), "{told}");
        assert!(!told.contains("1700000000") && !told.contains("99"), "{told}");
    }

    #[test]
    fn what_others_may_read_is_covered_unless_it_is_listed() {
        let covers = covers().unwrap();
        let covered = |name: &str| covers.iter().any(|cover| cover.over == Path::new("proc").join(name));
        for name in ["sys", "stat", "loadavg", "cmdline", "interrupts", "vmstat"] {
            assert!(covered(name), "{name}");
        }
        for name in ["self", "cpuinfo", "meminfo", "mounts", "1"] {
            assert!(!covered(name), "{name}");
        }
    }
}
