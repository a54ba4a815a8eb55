//! Control groups: which hierarchies are mounted, which controllers they have, whether groups can be made.

use nix::unistd::{AccessFlags, access};

use super::Check;

/// What sandboxes are limited by. Without the first three nothing is limited; the others weaken it.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];
const WANTED: [&str; 2] = ["io", "freezer"];

/// Where a controller is, and whether a group can be made there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller {
    name: String,
    mount: String,
    version: u8,
}

/// One check for the shape of it all, and one for each controller that is not usable.
pub(super) fn checks() -> Vec<Check> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let controllers = controllers(&mounts, &|mount| {
        std::fs::read_to_string(format!("{mount}/cgroup.controllers")).unwrap_or_default()
    });
    let shape = shape(&mounts);
    if shape == "none" {
        let mend = "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd";
        return vec![Check::missing("cgroups", "no hierarchy is mounted", mend)];
    }
    let writable = |mount: &str| access(mount, AccessFlags::W_OK).is_ok();
    let mut usable = Vec::new();
    let mut checks = Vec::new();
    for name in NEEDED.into_iter().chain(WANTED) {
        let needed = NEEDED.contains(&name);
        let check = if needed { Check::missing } else { Check::weak };
        let label = format!("cgroup {name}");
        match controllers.iter().find(|controller| controller.name == name) {
            Some(found) if writable(&found.mount) => usable.push(format!("{name} (v{})", found.version)),
            Some(found) => {
                let mend = "run faasd as root, and in a container give it a writable cgroup mount; under systemd use Delegate=yes";
                checks.push(check(&label, format!("{} can't be written", found.mount), mend.to_owned()));
            }
            None => {
                let mend = format!("boot with cgroup_enable={name}, or mount the controller");
                checks.push(check(&label, "not in any hierarchy".to_owned(), mend));
            }
        }
    }
    checks.insert(0, Check::good("cgroups", format!("{shape}: {}", usable.join(", "))));
    checks
}

/// `v1`, `hybrid`, `v2` or `none`.
fn shape(mountinfo: &str) -> &'static str {
    let has = |kind: &str| mounted(mountinfo).any(|(_, found, _)| found == kind);
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

/// Mount point, file system and super-block options of every mount (proc(5), `/proc/pid/mountinfo`).
fn mounted(mountinfo: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some((before.split(' ').nth(4)?, after.next()?, after.nth(1)?))
    })
}

/// Every controller with its place; `of_v2` reads what a v2 hierarchy has. v1's `blkio` counts as `io`; v2 freezes without one.
fn controllers(mountinfo: &str, of_v2: &dyn Fn(&str) -> String) -> Vec<Controller> {
    let mut found = Vec::new();
    for (mount, kind, options) in mounted(mountinfo) {
        let mut add = |name: &str, version| {
            found.push(Controller { name: name.to_owned(), mount: mount.to_owned(), version });
        };
        match kind {
            "cgroup" => options.split(',').for_each(|name| add(if name == "blkio" { "io" } else { name }, 1)),
            "cgroup2" => {
                of_v2(mount).split_whitespace().for_each(|name| add(name, 2));
                add("freezer", 2);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      39 31 0:36 / /sys/fs/cgroup/blkio rw shared:3 - cgroup cgroup rw,blkio\n";
    const V2: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn shapes_are_told_apart() {
        assert_eq!(shape(V1), "v1");
        assert_eq!(shape(V2), "v2");
        assert_eq!(shape(&format!("{V1}{V2}")), "hybrid");
        assert_eq!(shape("22 1 8:1 / / rw - ext4 /dev/sda rw\n"), "none");
    }

    #[test]
    fn controllers_have_one_name_in_both_versions() {
        let found = controllers(&format!("{V1}{V2}"), &|_| "pids hugetlb".to_owned());
        let place = |name: &str| {
            let controller = found.iter().find(|controller| controller.name == name).unwrap();
            (controller.mount.as_str(), controller.version)
        };
        assert_eq!(place("memory"), ("/sys/fs/cgroup/memory", 1));
        assert_eq!(place("io"), ("/sys/fs/cgroup/blkio", 1));
        assert_eq!(place("pids"), ("/sys/fs/cgroup/unified", 2));
        assert_eq!(place("freezer"), ("/sys/fs/cgroup/unified", 2));
    }
}
