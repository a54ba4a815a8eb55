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

/// Where this process goes when its own group is to hand controllers down.
const LEAF: &str = "daemon";
/// What a v2 group has, and may hand down.
const CONTROLLERS: &str = "cgroup.controllers";

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
    /// Reads mount table and membership of this process, and makes the project's groups: `PREFIX/INSTANCE` below each root, or, where v2 has
    /// the controllers and this process a group of its own (a unit with `Delegate=yes`), below that.
    ///
    /// On v2, where a group that has processes may not hand controllers down, this process moves to a leaf first.
    pub fn prepare(prefix: &str, instance: &str) -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(CgroupError::new("read", path));
        let found = Found::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let below = Path::new(prefix).join(instance);
        let mut layout = Self::default();
        if let Some((root, own)) = &found.v2 {
            let wanted: Vec<&str> = Controller::ALL
                .into_iter()
                .filter_map(Controller::v2_name)
                .filter(|name| lists(root, CONTROLLERS, &[name]) && !found.v1.contains_key(*name))
                .collect();
            let base = if wanted.is_empty() {
                // Without controllers nothing ties the groups to our own: the root keeps paths short and hierarchies alike.
                root.clone()
            } else {
                base(root, own, &wanted)?
            };
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
        self.remove_empty();
    }

    /// Removes what was made for it, as far as nothing is in it.
    pub fn remove_empty(&self) {
        remove_parents(&self.parents());
    }
}

fn make_all(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(path).map_err(CgroupError::new("make", path))
}

/// Below which group of v2 the project's are, with `wanted` handed down to its children.
///
/// This process's own, if it is that of nobody else and has all that is wanted. Else the root: of a shell's session the other processes
/// are not ours to move, and it has not every controller. Where the root is somebody else's, as in some containers, the own one all the
/// same.
fn base(root: &Path, own: &Path, wanted: &[&str]) -> Result<PathBuf, CgroupError> {
    // Of a process that has moved before.
    let whole = own.parent().filter(|_| own != root && own.ends_with(LEAF)).unwrap_or(own);
    if is_alone(whole) && lists(whole, CONTROLLERS, wanted) {
        return hand_down(whole, wanted).map(|()| whole.to_owned());
    }
    match hand_down(root, wanted) {
        Ok(()) => Ok(root.to_owned()),
        Err(error) if whole == root => Err(error),
        Err(_) => hand_down(whole, wanted).map(|()| whole.to_owned()),
    }
}

/// Whether no other process than this is in the group.
fn is_alone(group: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|listed| listed.lines().all(|pid| pid == own))
}

/// Whether a file of the group has every one of these names.
fn lists(group: &Path, file: &str, names: &[&str]) -> bool {
    let listed = fs::read_to_string(group.join(file)).unwrap_or_default();
    names.iter().all(|name| listed.split_whitespace().any(|listed| listed == *name))
}

/// Enables `controllers` for the children of `group`, moving this process to a leaf if it is in the way.
fn hand_down(group: &Path, controllers: &[&str]) -> Result<(), CgroupError> {
    let file = group.join("cgroup.subtree_control");
    let line = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    match fs::write(&file, &line) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let leaf = group.join(LEAF);
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

    /// Directories stand in for v2 groups: `(path, controllers, processes)`.
    fn tree(groups: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (path, controllers, processes) in groups {
            let group = tree.path().join(path);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join(CONTROLLERS), controllers).unwrap();
            fs::write(group.join("cgroup.procs"), processes).unwrap();
        }
        tree
    }

    /// Where the groups go for a process in `own`, and what was handed down there.
    fn based(tree: &tempfile::TempDir, own: &str) -> (PathBuf, String) {
        let base = base(tree.path(), &tree.path().join(own), &["memory", "cpu"]).unwrap();
        let handed = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap();
        (base.strip_prefix(tree.path()).unwrap().to_owned(), handed)
    }

    const ALL: &str = "cpuset cpu io memory pids\n";

    #[test]
    fn a_unit_to_which_its_group_was_delegated_stays_below_it() {
        let own = format!("{}\n", std::process::id());
        let tree = tree(&[("", ALL, ""), ("unit", ALL, &own)]);
        let expected = (PathBuf::from("unit"), "+memory +cpu".to_owned());
        assert_eq!(based(&tree, "unit"), expected);
        // Once more, by the same process: it is in the leaf by now.
        fs::write(tree.path().join("unit/cgroup.procs"), "").unwrap();
        assert_eq!(based(&tree, "unit/daemon"), expected);
    }

    #[test]
    fn processes_of_others_are_not_moved() {
        let own = format!("1\n{}\n", std::process::id());
        let tree = tree(&[("", ALL, ""), ("session", ALL, &own)]);
        assert_eq!(based(&tree, "session").0, Path::new(""));
    }

    /// What systemd hands down to a session, or to a unit without `Delegate=`, is memory and pids alone.
    #[test]
    fn a_group_that_lacks_a_controller_is_left_for_the_root() {
        let own = format!("{}\n", std::process::id());
        let tree = tree(&[("", ALL, ""), ("session", "memory pids\n", &own)]);
        assert_eq!(based(&tree, "session").0, Path::new(""));
    }

    #[test]
    fn what_serves_nobody_goes_and_what_is_in_use_stays() {
        let tree = tree(&[("faasd/refused", "", ""), ("faasd/used", "", ""), ("faasd/used/sandbox", "", "")]);
        for (instance, stays) in [("refused", false), ("used", true)] {
            let group = tree.path().join("faasd").join(instance);
            // The kernel's own files don't hold a group back; a tree's do.
            for file in [CONTROLLERS, "cgroup.procs"] {
                fs::remove_file(group.join(file)).unwrap();
            }
            Layout { v2: Some(group.clone()), ..Layout::default() }.remove_empty();
            assert_eq!(group.exists(), stays, "{instance}");
        }
    }

    #[test]
    fn where_the_root_is_not_ours_the_own_group_does() {
        let tree = tree(&[("", ALL, ""), ("container", ALL, "1\n")]);
        // A directory can't be written as a file, whoever asks.
        fs::create_dir(tree.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(based(&tree, "container").0, Path::new("container"));
    }
}
