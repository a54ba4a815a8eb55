//! Where this machine has which controller, and the project's own place below each hierarchy's root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;
use super::sweep::{remove_parents, sweep};

/// What the project uses of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Memory,
    /// Shares and quota.
    Cpu,
    /// CPU time used; on v2 part of `Cpu`.
    CpuAccounting,
    Pids,
    Io,
    /// Stopping without killing; on v2 every group can.
    Freezer,
}

impl Controller {
    pub const ALL: [Controller; 6] = [
        Controller::Memory,
        Controller::Cpu,
        Controller::CpuAccounting,
        Controller::Pids,
        Controller::Io,
        Controller::Freezer,
    ];

    fn v1_name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::CpuAccounting => "cpuacct",
            Controller::Pids => "pids",
            Controller::Io => "blkio",
            Controller::Freezer => "freezer",
        }
    }

    /// `None`: present in every v2 group.
    fn v2_name(self) -> Option<&'static str> {
        match self {
            Controller::Memory => Some("memory"),
            Controller::Cpu => Some("cpu"),
            Controller::Pids => Some("pids"),
            Controller::Io => Some("io"),
            Controller::CpuAccounting | Controller::Freezer => None,
        }
    }
}

/// Parents under which sandboxes get their groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The project's group on the unified hierarchy.
    pub v2: Option<PathBuf>,
    /// Controllers that the unified hierarchy serves.
    pub on_v2: Vec<Controller>,
    /// The project's group on the v1 hierarchy of each other controller. Two may share a hierarchy.
    pub v1: BTreeMap<Controller, PathBuf>,
}

impl Layout {
    /// Reads mount table and membership of this process, and makes the project's groups: `PREFIX/INSTANCE` below each root.
    ///
    /// On pure v2, where a group that has processes may not hand controllers down, this process moves to a leaf first.
    pub fn prepare(prefix: &str, instance: &str) -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(CgroupError::new("read", path));
        let found = Found::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let below = Path::new(prefix).join(instance);
        let mut layout = Self::default();
        if let Some((root, own)) = &found.v2 {
            let offered = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
            let offered: Vec<&str> = offered.split_whitespace().collect();
            let wanted: Vec<&str> = Controller::ALL
                .into_iter()
                .filter_map(Controller::v2_name)
                .filter(|name| offered.contains(name) && !found.v1.contains_key(*name))
                .collect();
            // Without controllers nothing ties the groups to our own: the root keeps paths short and hierarchies alike.
            let base = if wanted.is_empty() { root } else { own };
            if !wanted.is_empty() {
                hand_down(base, &wanted)?;
            }
            let group = base.join(&below);
            make_all(&group)?;
            if !wanted.is_empty() {
                hand_down(&base.join(prefix), &wanted)?;
                hand_down(&group, &wanted)?;
            }
            layout.on_v2 = Controller::ALL
                .into_iter()
                .filter(|c| c.v2_name().map_or(!found.v1.contains_key(c.v1_name()), |name| wanted.contains(&name)))
                .collect();
            if !layout.on_v2.contains(&Controller::Freezer) {
                // Stopping is quicker on v2 than by the v1 freezer, so it is used wherever v2 is mounted.
                layout.on_v2.push(Controller::Freezer);
            }
            layout.v2 = Some(group);
        }
        for controller in Controller::ALL {
            if layout.on_v2.contains(&controller) {
                continue;
            }
            if let Some(root) = found.v1.get(controller.v1_name()) {
                let group = root.join(&below);
                make_all(&group)?;
                layout.v1.insert(controller, group);
            }
        }
        Ok(layout)
    }

    pub fn has(&self, controller: Controller) -> bool {
        self.on_v2.contains(&controller) || self.v1.contains_key(&controller)
    }

    /// The controllers without which nothing is limited.
    pub fn missing(&self) -> Vec<&'static str> {
        [Controller::Memory, Controller::Cpu, Controller::Pids]
            .into_iter()
            .filter(|c| !self.has(*c))
            .map(Controller::v1_name)
            .collect()
    }

    /// `v1`, `hybrid` or `v2`, for people.
    pub fn describe(&self) -> &'static str {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => "v2",
            (Some(_), false) => "hybrid",
            (None, false) => "v1",
            (None, true) => "none",
        }
    }

    /// Every distinct parent group of the project's.
    pub fn parents(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.v1.values().chain(self.v2.iter()).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Kills whatever an earlier run left in the project's groups and removes them; the parents stay. Returns how many went.
    pub fn sweep(&self) -> usize {
        sweep(&self.parents())
    }

    /// Removes the parents too, as far as they are empty.
    pub fn remove(&self) {
        self.sweep();
        remove_parents(&self.parents());
    }
}

fn make_all(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(path).map_err(CgroupError::new("make", path))
}

/// Enables `controllers` for the children of `group`, moving this process to a leaf if it is in the way.
fn hand_down(group: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    let file = group.join("cgroup.subtree_control");
    let line = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    match fs::write(&file, &line) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let leaf = group.join("daemon");
            make_all(&leaf)?;
            let procs = group.join("cgroup.procs");
            let listed = fs::read_to_string(&procs).map_err(CgroupError::new("read", &procs))?;
            for pid in listed.lines() {
                // One that has ended meanwhile is no longer in the way.
                let _ = fs::write(leaf.join("cgroup.procs"), pid);
            }
            fs::write(&file, &line).map_err(CgroupError::new("write", &file))
        }
        other => other.map_err(CgroupError::new("write", &file)),
    }
}

/// What the mount table says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Root of the unified hierarchy as mounted here, and this process's own group on it.
    v2: Option<(PathBuf, PathBuf)>,
    /// Root of the v1 hierarchy per controller.
    v1: BTreeMap<String, PathBuf>,
}

impl Found {
    /// `mountinfo` and `membership` are `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)).
    fn parse(mountinfo: &str, membership: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(&point), Some(&kind)) = (left.get(4), right.first()) else { continue };
            match kind {
                "cgroup2" if found.v2.is_none() => {
                    let own = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
                    // A path that leads out of a cgroup namespace starts with "..": then the root seen here is ours.
                    let own = if own.starts_with("..") { "" } else { own };
                    found.v2 = Some((point.into(), Path::new(point).join(own)));
                }
                "cgroup" => {
                    for option in right.get(2).unwrap_or(&"").split(',') {
                        if Controller::ALL.iter().any(|c| c.v1_name() == option) {
                            found.v1.entry(option.to_owned()).or_insert_with(|| point.into());
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_machine_is_understood() {
        let mountinfo = "\
30 24 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:31 / /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory";
        let found = Found::parse(mountinfo, "4:memory:/some/where\n0::/\n");
        assert_eq!(found.v2, Some(("/sys/fs/cgroup/unified".into(), "/sys/fs/cgroup/unified/".into())));
        assert_eq!(found.v1["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.v1["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert!(!found.v1.contains_key("pids"));
    }

    #[test]
    fn a_pure_v2_machine_is_understood() {
        let mountinfo = "29 23 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let found = Found::parse(mountinfo, "0::/system.slice/faasd.service\n");
        assert_eq!(found.v2, Some(("/sys/fs/cgroup".into(), "/sys/fs/cgroup/system.slice/faasd.service".into())));
        assert!(found.v1.is_empty());
    }
}
