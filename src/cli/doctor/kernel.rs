//! The kernel: its release, namespaces, seccomp, Landlock.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Uid;

use super::Check;
use crate::sandbox::landlock_version;

/// What sandboxes are put in: the kernel's name below `/proc/self/ns` and the sysctl that may forbid it.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", "max_user_namespaces"),
    ("mnt", "max_mnt_namespaces"),
    ("pid", "max_pid_namespaces"),
    ("net", "max_net_namespaces"),
    ("ipc", "max_ipc_namespaces"),
    ("uts", "max_uts_namespaces"),
    ("cgroup", "max_cgroup_namespaces"),
];

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Which kernel, and as whom we run.
pub(super) fn identity() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "an unknown release".to_owned());
    if Uid::effective().is_root() {
        return Check::good("kernel", format!("Linux {release}, running as root"));
    }
    Check::missing(
        "kernel",
        format!("Linux {release}, running as uid {}", Uid::effective()),
        "run faasd as root: sandboxes need uids, mounts and cgroups of their own",
    )
}

/// One check for all namespaces that exist, one for each that does not.
pub(super) fn namespaces() -> Vec<Check> {
    let mut there = Vec::new();
    let mut checks = Vec::new();
    for (name, sysctl) in NAMESPACES {
        let most = read(&format!("/proc/sys/user/{sysctl}"));
        if !Path::new("/proc/self/ns").join(name).exists() {
            let detail = "this kernel has none such";
            checks.push(Check::missing(
                &format!("namespace {name}"),
                detail,
                "boot a kernel with CONFIG_NAMESPACES and all its parts",
            ));
        } else if most.as_deref() == Some("0") {
            let mend = format!("sysctl -w user.{sysctl}=65536");
            checks.push(Check::missing(&format!("namespace {name}"), "forbidden by a limit of 0", mend));
        } else {
            there.push(name);
        }
    }
    if !there.is_empty() {
        checks.insert(0, Check::good("namespaces", there.join(", ")));
    }
    checks
}

pub(super) fn seccomp() -> Check {
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.contains("kill_process") => Check::good("seccomp", "filters, with kill_process"),
        Some(actions) => Check::missing("seccomp", format!("only {actions}"), "boot a kernel of 4.14 or later"),
        None => Check::missing("seccomp", "no filters", "boot a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

/// By the system call: `/sys/kernel/security` is not mounted everywhere.
pub(super) fn landlock() -> Check {
    match landlock_version() {
        Ok(version) => Check::good("landlock", format!("version {version} of its interface")),
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Check::weak(
            "landlock",
            "in the kernel, but not switched on",
            "add `landlock` to the lsm= list of the kernel's command line",
        ),
        Err(error) => Check::weak(
            "landlock",
            format!("not in this kernel: {error}"),
            "boot a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK",
        ),
    }
}
