//! The read-only roots that sandboxes see, made once: a small file system of the launcher's own with the host's system directories
//! bound into it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::protocol::Setup;
use super::{proc, zygote};
use crate::sandbox::sys::{self, MountAttributes, walls};

/// A step that failed, for a message a person reads.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct StepError {
    pub step: String,
    pub source: io::Error,
}

impl From<walls::Failed> for StepError {
    fn from(failed: walls::Failed) -> Self {
        Self { step: failed.step.into(), source: io::Error::from_raw_os_error(failed.errno.0) }
    }
}

/// Names the step that an operation was.
pub trait Step<T> {
    fn step(self, what: impl Into<String>) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl Into<String>) -> Result<T, StepError> {
        self.map_err(|error| StepError { step: what.into(), source: error.into() })
    }
}

/// Top-level directories that are links on merged-usr systems and real elsewhere.
const SYSTEM: [&str; 6] = ["usr", "bin", "sbin", "lib", "lib64", "lib32"];

/// Compilers and sources: a function has no use for them and an attacker has.
const HIDDEN_FROM_FUNCTIONS: [&str; 8] = [
    "usr/lib/gcc",
    "usr/libexec/gcc",
    "usr/include",
    "usr/src",
    "usr/lib/go",
    "usr/lib/rustlib",
    "usr/share/doc",
    "usr/lib/llvm",
];

/// Host files and directories that programs expect in /etc. Anything else there may be the host's secret.
const SHOWN_IN_ETC: [&str; 7] =
    ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/certs", "ssl/openssl.cnf", "mime.types"];

/// Devices every program expects.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Mount points that are each sandbox's own.
pub const TMP: &str = "tmp";
pub const OUTPUT: &str = "output";
pub const TASK: &str = "var/task";
pub const PROC: &str = "proc";

pub fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Makes a root at `root`, which must be an empty directory.
pub fn build(root: &Path, setup: &Setup, with_compilers: bool) -> Result<(), StepError> {
    tmpfs(root, "mode=0755,size=16m").step("mount root")?;
    for name in SYSTEM {
        show_system_directory(root, name)?;
    }
    if !with_compilers {
        hide_compilers(root)?;
    }
    for path in &setup.shown {
        let inside = root.join(path.strip_prefix("/").unwrap_or(path));
        if !inside.exists() {
            show(path, &inside, true)?;
        }
    }
    write_etc(root)?;
    make_devices(root)?;
    let own = root.join("opt/faasd");
    make_dir(&own)?;
    for (name, contents) in &setup.files {
        write(&own.join(name), contents, 0o444)?;
    }
    if !with_compilers && !setup.zygotes.is_empty() {
        write_bytes(&own.join(zygote::LIBRARY_NAME), zygote::LIBRARY, 0o444)?;
    }
    show(&setup.executable, &own.join("faasd"), true)?;
    proc::write_covers(root)?;
    for point in [TMP, OUTPUT, TASK, PROC] {
        make_dir(&root.join(point))?;
    }
    symlink("/var/task", root.join("workspace")).step("link /workspace")?;
    symlink("/tmp", root.join("var/tmp")).step("link /var/tmp")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, root, None::<&str>, flags, None::<&str>).step("make root read-only")
}

fn tmpfs(at: &Path, options: &str) -> nix::Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
}

pub fn make_dir(path: &Path) -> Result<(), StepError> {
    fs::create_dir_all(path).step(format!("make {}", path.display()))
}

pub fn write(path: &Path, contents: &str, mode: u32) -> Result<(), StepError> {
    write_bytes(path, contents.as_bytes(), mode)
}

fn write_bytes(path: &Path, contents: &[u8], mode: u32) -> Result<(), StepError> {
    fs::write(path, contents).step(format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).step(format!("set mode of {}", path.display()))
}

/// Binds `host` (file or directory, with what is mounted below it) at `inside`, read-only.
fn show(host: &Path, inside: &Path, no_devices: bool) -> Result<(), StepError> {
    let what = || format!("show {}", host.display());
    if host.is_dir() {
        make_dir(inside)?;
    } else {
        if let Some(parent) = inside.parent() {
            make_dir(parent)?;
        }
        fs::write(inside, "").step(what())?;
    }
    let tree = sys::open_tree(&c_path(host).step(what())?, false).step(what())?;
    sys::set_attributes(tree.as_fd(), MountAttributes { read_only: no_devices, no_devices }).step(what())?;
    sys::move_mount(tree.as_fd(), &c_path(inside).step(what())?).step(what())
}

fn show_system_directory(root: &Path, name: &str) -> Result<(), StepError> {
    let host = Path::new("/").join(name);
    let inside = root.join(name);
    match fs::symlink_metadata(&host) {
        Ok(meta) if meta.is_symlink() => {
            let target = fs::read_link(&host).step(format!("read link {}", host.display()))?;
            symlink(target, &inside).step(format!("link {}", inside.display()))
        }
        Ok(meta) if meta.is_dir() => show(&host, &inside, true),
        _ => Ok(()),
    }
}

fn hide_compilers(root: &Path) -> Result<(), StepError> {
    for name in HIDDEN_FROM_FUNCTIONS {
        let path = root.join(name);
        if path.is_dir() && !path.is_symlink() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
            mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some("mode=0755,size=4k"))
                .step(format!("hide /{name}"))?;
        }
    }
    Ok(())
}

fn write_etc(root: &Path) -> Result<(), StepError> {
    let etc = root.join("etc");
    make_dir(&etc)?;
    for name in SHOWN_IN_ETC {
        let host: PathBuf = Path::new("/etc").join(name);
        if host.exists() {
            show(&host, &etc.join(name), true)?;
        }
    }
    for (name, contents) in [
        (
            "passwd",
            "root:x:0:0:root:/tmp:/bin/sh\nsandbox:x:1000:1000:sandbox:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        ("group", "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
        ("hostname", "sandbox\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("resolv.conf", ""),
    ] {
        write(&etc.join(name), contents, 0o444)?;
    }
    Ok(())
}

fn make_devices(root: &Path) -> Result<(), StepError> {
    let dev = root.join("dev");
    make_dir(&dev)?;
    for name in DEVICES {
        show(&Path::new("/dev").join(name), &dev.join(name), false)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp"),
    ] {
        symlink(target, dev.join(name)).step(format!("link /dev/{name}"))?;
    }
    Ok(())
}
