//! The driver: finds out what this machine offers, and makes sandboxes with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::cgroup::{self, Claim, Controller, Layout};
use super::groups::{claim_groups, io_limits};
use super::instance::LinuxSandbox;
use super::interpreters::{Found, Interpreters};
use super::launch::LauncherHandle;
use super::launcher::protocol::{Interpreter, RUNNER, Root, Scratch, Setup, Start};
use super::process::{Process, Spawned};
use super::quarantine::Quarantine;
use super::seccomp;
use super::stock::Stock;
use super::zygotes::Zygotes;
use super::{environment, files};
use crate::config::{Config, Isolation};
use crate::domain::function::Runtime;
use crate::domain::ids::SandboxId;
use crate::domain::limits::MIB;
use crate::ports::sandbox::{Sandbox, SandboxDriver, SandboxError, SandboxKind};
use crate::runtime::shims;

/// Memory that a generic sandbox may use at least before it is given a function and that function's limit. It is given what a function
/// has that does not say, if that is more: then most need no other limit.
const GENERIC_MEMORY_MB_MIN: u32 = 128;
/// Sandboxes being made at once: the launcher makes one after the other anyway.
const MAKING_MAX: usize = 16;
/// How long the trial at start may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Sandboxes of this machine.
pub struct LinuxSandboxes {
    shared: Arc<Shared>,
    interpreters: Interpreters,
    making: Semaphore,
    launcher: Mutex<Option<JoinHandle<()>>>,
    claim: Mutex<Option<Claim>>,
    warnings: Vec<String>,
}

/// What every sandbox needs of its driver.
pub struct Shared {
    pub config: Arc<Config>,
    pub launcher: LauncherHandle,
    /// System calls that sandboxes were refused.
    pub refused: seccomp::Counters,
    pub quarantine: Quarantine,
    layout: Layout,
    groups: Arc<Stock>,
    slots: Mutex<Slots>,
}

/// Slots in use: each is an index that stands for a pair of host ids and a mount of the launcher's.
#[derive(Debug, Default)]
struct Slots {
    free: BTreeSet<u32>,
    next: u32,
}

impl Shared {
    fn take_slot(&self) -> Result<u32, SandboxError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.free.pop_first() {
            return Ok(slot);
        }
        if slots.next >= self.config.sandbox.uid_count / 2 {
            let cause = "every host id of `sandbox.uid_count` is in use".to_owned();
            return Err(SandboxError::Failed { step: "give the sandbox its host ids", cause });
        }
        slots.next += 1;
        Ok(slots.next - 1)
    }

    /// Only when nothing runs under its ids any more.
    pub fn free_slot(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).free.insert(slot);
    }

    /// What a sandbox with this much memory may use.
    pub fn limits(&self, memory_mb: u32) -> cgroup::Limits {
        limits(&self.config, memory_mb)
    }

    /// Makes a process in groups of its own, which runs `arguments`.
    async fn spawn(
        self: &Arc<Self>,
        root: Root,
        memory_mb: u32,
        arguments: Vec<String>,
    ) -> Result<Spawned, SandboxError> {
        let slot = self.take_slot()?;
        let group = self.groups.take(&self.limits(memory_mb)).map_err(|error| {
            self.free_slot(slot);
            SandboxError::Failed { step: "make control groups", cause: error.to_string() }
        })?;
        let start = Start {
            slot,
            root,
            uid: self.config.sandbox.uid_first + 2 * slot,
            into_v2: false,
            arguments,
            environment: environment::generic(),
            open_files_max: self.config.sandbox.open_files_max,
            tasks_max: self.config.limits.pids.into(),
        };
        // In a task of its own: if whoever asked goes away meanwhile, the sandbox is still taken over, and ended.
        let shared = self.clone();
        let spawning = tokio::spawn(async move { Process::spawn(&shared, group, start).await });
        spawning.await.unwrap_or(Err(SandboxError::Cancelled))
    }

    /// Makes a sandbox that does nothing, to see whether it can be done. Whether its refused system calls were told.
    async fn try_one(self: &Arc<Self>) -> Result<bool, SandboxError> {
        let spawned = self.spawn(Root::Run, GENERIC_MEMORY_MB_MIN, vec!["/bin/true".to_owned()]).await?;
        let exit = tokio::time::timeout(TRIAL_TIMEOUT, spawned.process.wait()).await;
        match exit {
            Ok(ended) if ended.exit.code == Some(0) => Ok(spawned.is_counted),
            Ok(ended) => Err(SandboxError::Ended(ended.exit)),
            Err(_) => Err(SandboxError::Failed { step: "try a sandbox", cause: "it does not end".to_owned() }),
        }
    }
}

fn limits(config: &Config, memory_mb: u32) -> cgroup::Limits {
    /// As on Lambda: this many megabytes come with one processor.
    const MB_PER_CPU: f64 = 1769.0;
    let cpus = f64::from(memory_mb) / MB_PER_CPU;
    let ceiling = cpus.max(config.sandbox.cpu_ceiling_min);
    cgroup::Limits {
        memory_bytes: u64::from(memory_mb) * MIB,
        cpu_shares: (cpus * 1024.0) as u64,
        cpu_quota_us: (ceiling * 100_000.0) as u64,
        pids: config.limits.pids,
    }
}

/// What a sandbox has until it is given a function.
fn generic_memory_mb(config: &Config) -> u32 {
    config.limits.memory_mb_default.max(GENERIC_MEMORY_MB_MIN)
}

impl LinuxSandboxes {
    /// Starts the launcher, sweeps what an earlier run left, and tries a sandbox.
    ///
    /// `instance` tells this data directory's sandboxes from another's; `path` is where interpreters are looked for.
    /// `Unsupported`: this machine can't isolate as `config.isolation` demands; the sentence says what is missing.
    pub async fn open(
        config: Arc<Config>,
        instance: &str,
        executable: &Path,
        path: &str,
    ) -> Result<Self, SandboxError> {
        let mut warnings = Vec::new();
        let (layout, claim) = claim_groups(&config, instance, &mut warnings)?;
        let swept = layout.sweep() + cgroup::sweep_orphans(&layout.parents());
        if swept > 0 {
            tracing::info!(groups = swept, "ended what an earlier run left");
        }
        cgroup::count_disks(&layout);
        let interpreters = Interpreters::find(&config.runtimes, path);
        let run_dir = config.data_dir.join("run");
        let run_dir = std::fs::create_dir_all(&run_dir)
            .and_then(|()| run_dir.canonicalize())
            .map_err(|error| SandboxError::Failed { step: "make the run directory", cause: error.to_string() })?;
        let mut setup = Setup {
            run_dir,
            executable: executable.to_owned(),
            shown: interpreters.shown(),
            files: shims::FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            cgroup_parents: layout.parents(),
            scratch: scratch_at_start(&config),
            user_namespace: true,
            zygotes: if config.sandbox.zygote { zygotes(&interpreters) } else { Vec::new() },
        };
        let mut claim = Some(claim);
        let begun = match Self::begin(&config, &layout, setup.clone(), &mut claim, &mut warnings).await {
            Err(error) if config.isolation == Isolation::Auto => {
                setup.user_namespace = false;
                // The launcher that failed has taken its groups with it.
                drop(claim.take());
                let (layout, again) = claim_groups(&config, instance, &mut Vec::new())?;
                claim = Some(again);
                let begun = Self::begin(&config, &layout, setup, &mut claim, &mut warnings).await;
                if begun.is_ok() {
                    warnings.push(format!(
                        "no user namespaces ({error}): sandboxes run under unprivileged host ids instead; `faasd doctor` shows how to mend it"
                    ));
                }
                begun.map_err(|error| {
                    SandboxError::Unsupported(format!(
                        "{error}; that is needed even for `isolation = \"auto\"`: run faasd as root, in a container as a privileged one; `faasd doctor` shows what this machine lacks"
                    ))
                })
            }
            begun => begun.map_err(|error| {
                SandboxError::Unsupported(format!(
                    "{error}; `faasd doctor` shows what this machine lacks; `isolation = \"auto\"` starts with the strongest there is"
                ))
            }),
        };
        let (shared, task) = begun?;
        Ok(Self {
            shared,
            interpreters,
            making: Semaphore::new(MAKING_MAX),
            launcher: Mutex::new(Some(task)),
            claim: Mutex::new(claim),
            warnings,
        })
    }

    async fn begin(
        config: &Arc<Config>,
        layout: &Layout,
        setup: Setup,
        claim: &mut Option<Claim>,
        warnings: &mut Vec<String>,
    ) -> Result<(Arc<Shared>, JoinHandle<()>), SandboxError> {
        let (launcher, task) = LauncherHandle::start(setup, Zygotes::default()).await?;
        let shared = Arc::new(Shared {
            config: config.clone(),
            launcher,
            refused: seccomp::Counters::default(),
            quarantine: Quarantine::default(),
            layout: layout.clone(),
            groups: Stock::new(
                layout.clone(),
                limits(config, generic_memory_mb(config)),
                io_limits(config, layout, warnings),
            ),
            slots: Mutex::default(),
        });
        match shared.try_one().await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                "refused system calls are not counted: another seccomp listener is in force, or the kernel is older than 5.0"
            ),
            Err(error) => {
                shared.groups.close();
                // It ends what is in the groups, which it can't while they are claimed: another may only begin when it is gone.
                drop(claim.take());
                shared.launcher.close().await;
                let _ = task.await;
                return Err(error);
            }
        }
        Ok((shared, task))
    }

    /// What is weaker here than it should be, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Has `registry` show what is counted here.
    pub fn register(&self, registry: &prometheus::Registry) {
        self.shared.refused.register(registry);
        self.shared.quarantine.register(registry);
        self.shared.launcher.zygotes.register(registry);
    }

    /// What is kept to be forked, and how sandboxes came to be.
    pub fn zygotes(&self) -> &Zygotes {
        &self.shared.launcher.zygotes
    }

    pub fn interpreters(&self) -> &Interpreters {
        &self.interpreters
    }

    /// Launchers that were started because the one before died.
    pub fn launcher_restarts(&self) -> u64 {
        self.shared.launcher.restarts.load(Ordering::Relaxed)
    }

    /// `v1`, `hybrid`, `v2` or `none`.
    pub fn cgroups(&self) -> &'static str {
        self.shared.layout.describe()
    }

    /// The project's own groups, one per hierarchy, below which every sandbox has its own.
    pub fn groups(&self) -> Vec<std::path::PathBuf> {
        self.shared.layout.parents()
    }

    /// Whether sandboxes can be frozen here.
    pub fn can_freeze(&self) -> bool {
        self.shared.layout.has(Controller::Freezer)
    }

    /// The runtimes whose interpreter is there.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let is_there = |runtime: &Runtime| self.interpreters.of(*runtime).is_none_or(Result::is_ok);
        Runtime::ALL.into_iter().filter(is_there).collect()
    }

    /// Ends the launcher, and with it every sandbox that is left, and removes the project's groups.
    pub async fn close(&self) {
        let task = self.launcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let layout = self.shared.layout.clone();
        self.shared.groups.close();
        // From here on they are the launcher's, to clear away.
        drop(self.claim.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.launcher.close().await;
        if let Some(task) = task {
            let _ = task.await;
        }
        let _ = tokio::task::spawn_blocking(move || layout.remove()).await;
    }

    fn arguments(&self, kind: SandboxKind) -> Result<Vec<String>, SandboxError> {
        let found = |found: &Found| found.clone().map_err(SandboxError::Unsupported);
        match kind {
            SandboxKind::Runtime(Runtime::Python) => Ok(python(&found(&self.interpreters.python)?.program)),
            SandboxKind::Runtime(Runtime::Nodejs) => {
                Ok(on_shim(&found(&self.interpreters.node)?.program, shims::NODE_FLAGS, shims::NODE))
            }
            SandboxKind::Build(runtime) => match self.interpreters.compiler(runtime) {
                Some(Err(sentence)) => Err(SandboxError::Unsupported(sentence.clone())),
                _ => Ok(runner()),
            },
            SandboxKind::Runtime(_) => Ok(runner()),
        }
    }
}

fn on_shim(program: &Path, flags: &[&str], shim: &str) -> Vec<String> {
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    std::iter::once(program.display().to_string()).chain(flags).chain([format!("/opt/faasd/{shim}")]).collect()
}

fn python(program: &Path) -> Vec<String> {
    on_shim(program, shims::PYTHON_FLAGS, shims::PYTHON)
}

/// What can be forked once it has booted, of the interpreters there are. Node can't: it has threads.
fn zygotes(interpreters: &Interpreters) -> Vec<Interpreter> {
    let pythons = interpreters.python.iter();
    pythons
        .map(|found| Interpreter { arguments: python(&found.program), environment: environment::generic() })
        .collect()
}

/// As for most functions that get a generic sandbox, so that theirs need not be sized anew.
pub fn scratch_at_start(config: &Config) -> Scratch {
    let limits = &config.limits;
    files::scratch(u64::from(limits.scratch_mb(Runtime::Python, limits.memory_mb_default)) * MIB)
}

fn runner() -> Vec<String> {
    RUNNER.map(str::to_owned).to_vec()
}

#[async_trait]
impl SandboxDriver for LinuxSandboxes {
    async fn start(&self, id: SandboxId, kind: SandboxKind) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let arguments = self.arguments(kind)?;
        let _turn = self.making.acquire().await.map_err(|_| SandboxError::Cancelled)?;
        let (root, memory_mb) = match kind {
            SandboxKind::Runtime(_) => (Root::Run, generic_memory_mb(&self.shared.config)),
            SandboxKind::Build(_) => (Root::Build, self.shared.config.sandbox.build_memory_mb),
        };
        let spawned = self.shared.spawn(root, memory_mb, arguments).await?;
        // Its groups are named by themselves, since they were there before it.
        tracing::debug!(sandbox_id = %id, group = spawned.process.group.name(), "sandbox made");
        let compiler = match kind {
            SandboxKind::Build(runtime) => self.interpreters.compiler(runtime).and_then(|found| found.clone().ok()),
            SandboxKind::Runtime(_) => None,
        };
        let compiler = compiler.map(|found| found.program);
        let sandbox = LinuxSandbox::ready(self.shared.clone(), spawned, kind, compiler).await?;
        Ok(Arc::new(sandbox))
    }
}
