//! The kernel: its release, namespaces, seccomp, Landlock, `/proc`.

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

/// A namespace for clocks, without which sandboxes see how long the host has been up.
pub(super) fn clocks() -> Check {
    const NAME: &str = "namespace time";
    let most = read("/proc/sys/user/max_time_namespaces");
    if !Path::new("/proc/self/ns/time").exists() {
        let detail = "this kernel has none such: sandboxes see the host's uptime";
        return Check::weak(NAME, detail, "boot a kernel of 5.6 or later with CONFIG_TIME_NS");
    }
    if most.as_deref() == Some("0") {
        return Check::missing(NAME, "forbidden by a limit of 0", "sysctl -w user.max_time_namespaces=65536");
    }
    Check::good(NAME, "sandboxes have clocks of their own")
}

/// `/proc` of each sandbox hides its first process from the code in it.
pub(super) fn proc() -> Check {
    const NAME: &str = "proc hidepid";
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match version(&release) {
        Some(version) if version >= (5, 8) => Check::good(NAME, "for each mount of /proc by itself"),
        Some(_) => {
            let detail =
                format!("on Linux {release} one setting for all mounts of a pid namespace; a sandbox has one mount");
            Check::good(NAME, detail)
        }
        None => Check::weak(NAME, format!("nobody knows what a kernel called {release:?} has"), "see `sandbox` below"),
    }
}

/// Major and minor of a release like `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

pub(super) fn seccomp() -> Check {
    match read("/proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.contains("kill_process") && actions.contains("user_notif") => {
            Check::good("seccomp", "filters, with kill_process and a listener that counts what is refused")
        }
        Some(actions) if actions.contains("kill_process") => Check::weak(
            "seccomp",
            "filters, with kill_process; refused calls are not counted",
            "boot a kernel of 5.0 or later for seccomp's user_notif",
        ),
        Some(actions) => Check::missing("seccomp", format!("only {actions}"), "boot a kernel of 4.14 or later"),
        None => Check::missing("seccomp", "no filters", "boot a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

/// By the system call: `/sys/kernel/security` is not mounted everywhere.
pub(super) fn landlock() -> Check {
    match landlock_version() {
        Ok(version) if version >= 6 => {
            Check::good("landlock", format!("version {version} of its interface: files, sockets, signals"))
        }
        Ok(version) => Check::good("landlock", format!("version {version} of its interface: files")),
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

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10.0"), Some((5, 10)));
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("unknown"), None);
    }
}
