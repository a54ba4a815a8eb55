//! The shell around the pool: its decisions are made under one short lock and carried out outside of it.
//!
//! A checkout that finds an idle sandbox is lock, decide, unlock, in the caller's own task. Whoever waits is told through a
//! oneshot. Each sandbox has one task, which starts it, then hears of its death.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{SandboxId, VersionKey};
use crate::domain::outcome::{Failure, Output, StartType};
use crate::domain::pool::{Action, EndReason, Event, Pool, Refusal, WaiterId};
use crate::ports::clock::Clock;
use crate::ports::sandbox::{
    LogSink, Sandbox, SandboxDriver, SandboxError, SandboxKind, Specialisation, SpecialiseError,
};

use super::advisors::Advisors;
use super::cancel::{Cancel, Why};
use super::code_cache::{CodeCache, CodeError};
use super::handle::{Handle, Special};
use super::metrics::Metrics;
use super::tasks::Tasks;

/// Why a creation failed.
#[derive(Debug, Clone)]
pub(super) enum CreationFailure {
    /// The user's code does not load.
    Init {
        failure: Failure,
        stdout: Output,
        stderr: Output,
        took: Duration,
    },
    Code(CodeError),
    Sandbox(SandboxError),
}

/// Why a caller has no sandbox.
#[derive(Debug)]
pub(super) enum NoSandbox {
    WaitersFull,
    Overloaded,
    OwnerFull,
    TooLarge,
    Draining,
    TimedOut,
    /// It was to be an idle one.
    Stale,
    Cancelled(Why),
    Failed(Box<CreationFailure>),
}

type Answer = Result<Checkout, NoSandbox>;

/// Whether a caller waits where no sandbox is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// In a line of reasonable length.
    InLine,
    /// However long the line is.
    Patiently,
    Never,
}

/// The right to one sandbox for one call. Dropped without [`Checkout::check_in`] it ends the sandbox, if it was used.
pub(super) struct Checkout {
    sandboxes: Arc<Sandboxes>,
    pub handle: Arc<Handle>,
    pub start_type: StartType,
    /// Whether a call began on it.
    used: bool,
    returned: bool,
}

impl Checkout {
    /// Thaws; from now on a checkout that is lost spoils its sandbox.
    pub fn begin(&mut self) -> Result<(), SandboxError> {
        self.used = true;
        self.handle.hold()
    }

    /// With the call's processor time; `None`: there was no call after all.
    pub fn check_in(mut self, reusable: bool, cpu: Option<Duration>) {
        self.give_back(reusable, cpu);
    }

    fn give_back(&mut self, reusable: bool, cpu: Option<Duration>) {
        if !std::mem::replace(&mut self.returned, true) {
            self.handle.release();
            self.sandboxes.apply(Event::Checkin { sandbox: self.handle.id, reusable, cpu });
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.give_back(!self.used, None);
    }
}

/// What the lock guards.
pub(super) struct Core {
    pub pool: Pool,
    /// Of all that have started.
    pub handles: HashMap<SandboxId, Arc<Handle>>,
    callers: HashMap<WaiterId, oneshot::Sender<Answer>>,
    next_waiter: u64,
    /// Used again by each event.
    actions: Vec<Action>,
    /// When the next tick is meant to be.
    pub tick_at: Duration,
}

/// A decision, to be carried out without the lock.
enum Deed {
    Answer(oneshot::Sender<Answer>, Answer),
    Start(SandboxId, Runtime),
    Specialise(SandboxId, Arc<Version>, Option<Arc<Handle>>),
    Freeze(Arc<Handle>),
    End(SandboxId, Option<Arc<Handle>>),
}

pub(super) struct Sandboxes {
    core: Mutex<Core>,
    driver: Arc<dyn SandboxDriver>,
    code: Arc<CodeCache>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    advisors: Arc<Advisors>,
    init_timeout: Duration,
    tasks: Tasks,
    /// Tells the ticker that it is to look earlier than it meant to.
    pub tick_sooner: Notify,
    /// Told of every change, once somebody wants to know.
    watcher: OnceLock<Notify>,
}

impl Sandboxes {
    pub fn new(
        pool: Pool,
        driver: Arc<dyn SandboxDriver>,
        code: Arc<CodeCache>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        advisors: Arc<Advisors>,
        init_timeout: Duration,
    ) -> Arc<Self> {
        let core = Core {
            pool,
            handles: HashMap::new(),
            callers: HashMap::new(),
            next_waiter: 0,
            actions: Vec::new(),
            tick_at: Duration::ZERO,
        };
        let (tasks, tick_sooner) = (Tasks::default(), Notify::new());
        let core = Mutex::new(core);
        let watcher = OnceLock::new();
        Arc::new(Self { core, driver, code, clock, metrics, advisors, init_timeout, tasks, tick_sooner, watcher })
    }

    /// A sandbox of this version, at once or when one is free, within `timeout`.
    pub async fn check_out(
        self: &Arc<Self>,
        version: &Arc<Version>,
        wait: Wait,
        timeout: Duration,
        cancel: &Cancel,
        log: Option<&dyn LogSink>,
    ) -> Answer {
        let (waiter, mut receiver) = match self.ask(version, wait) {
            Asked::Answered(answer) => return answer,
            Asked::Waiting(waiter, receiver) => (waiter, receiver),
        };
        if wait == Wait::Never {
            self.lock().callers.remove(&waiter);
            self.apply(Event::Cancel { waiter });
            return Err(NoSandbox::Stale);
        }
        if let Some(log) = log {
            log.waits();
        }
        let gone = tokio::select! {
            biased;
            answer = &mut receiver => return answer.unwrap_or(Err(NoSandbox::Draining)),
            why = cancel.told() => NoSandbox::Cancelled(why),
            () = tokio::time::sleep(timeout) => NoSandbox::TimedOut,
        };
        self.lock().callers.remove(&waiter);
        self.apply(Event::Cancel { waiter });
        // An answer that came meanwhile is dropped with the receiver, and so checked in again.
        Err(gone)
    }

    fn ask(self: &Arc<Self>, version: &Arc<Version>, wait: Wait) -> Asked {
        let now = self.clock.monotonic();
        let mut core = self.lock();
        if wait == Wait::Never && core.pool.idle_of(version.key()) == 0 {
            return Asked::Answered(Err(NoSandbox::Stale));
        }
        let patient = wait == Wait::Patiently;
        core.next_waiter += 1;
        let waiter = WaiterId(core.next_waiter);
        let mut actions = std::mem::take(&mut core.actions);
        core.pool.apply(Event::Checkout { waiter, version, patient }, now, &mut actions);
        let own = actions.iter().position(|action| match action {
            Action::Assign { waiter: to, .. } | Action::Refuse { waiter: to, .. } => *to == waiter,
            _ => false,
        });
        let asked = match own.map(|at| actions.swap_remove(at)) {
            Some(Action::Assign { sandbox, start_type, .. }) => {
                Asked::Answered(self.checkout(&core, sandbox, start_type))
            }
            Some(Action::Refuse { reason, .. }) => Asked::Answered(Err(self.refusal(reason, None))),
            _ => {
                let (sender, receiver) = oneshot::channel();
                core.callers.insert(waiter, sender);
                Asked::Waiting(waiter, receiver)
            }
        };
        self.carry_out(core, actions, None, now);
        asked
    }

    fn checkout(self: &Arc<Self>, core: &Core, sandbox: SandboxId, start_type: StartType) -> Answer {
        let Some(handle) = core.handles.get(&sandbox).cloned() else {
            let cause = "it is not there".to_owned();
            let failure = CreationFailure::Sandbox(SandboxError::Failed { step: "assign", cause });
            return Err(NoSandbox::Failed(Box::new(failure)));
        };
        Ok(Checkout { sandboxes: self.clone(), handle, start_type, used: false, returned: false })
    }

    fn refusal(&self, reason: Refusal, failure: Option<&CreationFailure>) -> NoSandbox {
        let (name, answer) = match (reason, failure) {
            (Refusal::WaitersFull, _) => ("waiters_full", NoSandbox::WaitersFull),
            (Refusal::Overloaded, _) => ("overloaded", NoSandbox::Overloaded),
            (Refusal::OwnerFull, _) => ("owner_full", NoSandbox::OwnerFull),
            (Refusal::TooLarge, _) => ("too_large", NoSandbox::TooLarge),
            (Refusal::CreationFailed, Some(failure)) => {
                ("creation_failed", NoSandbox::Failed(Box::new(failure.clone())))
            }
            (Refusal::CreationFailed, None) => ("creation_failed", NoSandbox::Draining),
            (Refusal::Draining, _) => ("draining", NoSandbox::Draining),
        };
        self.metrics.refused(name);
        answer
    }

    pub fn apply(self: &Arc<Self>, event: Event<'_>) {
        self.apply_failure(event, None);
    }

    fn apply_failure(self: &Arc<Self>, event: Event<'_>, failure: Option<CreationFailure>) {
        let now = self.clock.monotonic();
        let mut core = self.lock();
        let mut actions = std::mem::take(&mut core.actions);
        core.pool.apply(event, now, &mut actions);
        if let Event::Ended { sandbox } = event {
            core.handles.remove(&sandbox);
        }
        self.carry_out(core, actions, failure, now);
    }

    /// Looks up what the actions name, gives the lock back, then acts.
    fn carry_out(
        self: &Arc<Self>,
        mut core: MutexGuard<'_, Core>,
        mut actions: Vec<Action>,
        failure: Option<CreationFailure>,
        now: Duration,
    ) {
        let deeds: Vec<Deed> =
            actions.drain(..).filter_map(|action| self.deed(&mut core, action, failure.as_ref())).collect();
        core.actions = actions;
        self.tick_in_time(&mut core, now);
        drop(core);
        for deed in deeds {
            self.act(deed);
        }
        if let Some(watcher) = self.watcher.get() {
            watcher.notify_one();
        }
    }

    fn deed(self: &Arc<Self>, core: &mut Core, action: Action, failure: Option<&CreationFailure>) -> Option<Deed> {
        Some(match action {
            Action::Assign { waiter, sandbox, start_type, .. } => {
                let checkout = self.checkout(core, sandbox, start_type);
                match core.callers.remove(&waiter) {
                    Some(caller) => Deed::Answer(caller, checkout),
                    // It gave up in this very moment: the checkout goes back when the answer is dropped, without the lock.
                    None => Deed::Answer(oneshot::channel().0, checkout),
                }
            }
            Action::Refuse { waiter, reason } => {
                Deed::Answer(core.callers.remove(&waiter)?, Err(self.refusal(reason, failure)))
            }
            Action::Start { sandbox, runtime } => Deed::Start(sandbox, runtime),
            Action::Specialise { sandbox, version } => {
                Deed::Specialise(sandbox, version, core.handles.get(&sandbox).cloned())
            }
            Action::Freeze { sandbox } => Deed::Freeze(core.handles.get(&sandbox).cloned()?),
            Action::End { sandbox, reason } => {
                self.note_end(sandbox, reason);
                Deed::End(sandbox, core.handles.get(&sandbox).cloned())
            }
        })
    }

    fn note_end(&self, sandbox: SandboxId, reason: EndReason) {
        self.metrics.sandbox_ended(reason);
        tracing::debug!(sandbox_id = %sandbox, reason = reason.as_str(), "sandbox ends");
    }

    fn act(self: &Arc<Self>, deed: Deed) {
        let this = self.clone();
        match deed {
            Deed::Answer(caller, answer) => drop(caller.send(answer)),
            Deed::Start(id, runtime) => self.tasks.spawn(this.start(id, runtime)),
            Deed::Specialise(id, version, handle) => self.tasks.spawn(this.specialise(id, version, handle)),
            Deed::Freeze(handle) => {
                if let Err(error) = handle.freeze() {
                    tracing::debug!(sandbox_id = %handle.id, %error, "sandbox not frozen");
                }
            }
            Deed::End(id, handle) => self.tasks.spawn(this.end(id, handle)),
        }
    }

    async fn start(self: Arc<Self>, id: SandboxId, runtime: Runtime) {
        let begun = self.clock.monotonic();
        let sandbox = match self.driver.start(id, SandboxKind::Runtime(runtime)).await {
            Ok(sandbox) => {
                self.metrics.started(runtime, self.clock.monotonic().saturating_sub(begun));
                sandbox
            }
            Err(error) => {
                self.note_failure(id, runtime, &error);
                let failure = Some(CreationFailure::Sandbox(error));
                return self.apply_failure(Event::StartFailed { sandbox: id }, failure);
            }
        };
        self.lock().handles.insert(id, Arc::new(Handle::new(id, sandbox.clone())));
        self.apply(Event::Started { sandbox: id });
        sandbox.ended().await;
        self.apply(Event::Died { sandbox: id });
    }

    fn note_failure(&self, id: SandboxId, runtime: Runtime, error: &SandboxError) {
        let step = match error {
            SandboxError::Failed { step, .. } => step,
            SandboxError::Unsupported(_) => "unsupported",
            SandboxError::Ended(_) => "ended",
            SandboxError::Cancelled => "cancelled",
        };
        self.metrics.start_failed(step);
        tracing::warn!(sandbox_id = %id, %runtime, %error, "sandbox not started");
    }

    async fn specialise(self: Arc<Self>, id: SandboxId, version: Arc<Version>, handle: Option<Arc<Handle>>) {
        let result = match handle {
            Some(handle) => self.try_specialise(&handle, &version).await,
            None => Err(CreationFailure::Sandbox(SandboxError::Cancelled)),
        };
        match result {
            Ok(()) => self.apply(Event::Specialised { sandbox: id }),
            Err(failure) => {
                if matches!(failure, CreationFailure::Init { .. }) {
                    self.metrics.start_failed("init");
                } else {
                    self.metrics.start_failed("specialise");
                    tracing::warn!(sandbox_id = %id, function = %version.function_name, ?failure, "sandbox not specialised");
                }
                self.apply_failure(Event::SpecialiseFailed { sandbox: id }, Some(failure));
            }
        }
    }

    async fn try_specialise(&self, handle: &Handle, version: &Arc<Version>) -> Result<(), CreationFailure> {
        let code = self.code.get(version.code).await.map_err(CreationFailure::Code)?;
        handle.hold().map_err(CreationFailure::Sandbox)?;
        let what = Specialisation { version: version.clone(), code_dir: code.path(), init_timeout: self.init_timeout };
        let begun = self.clock.monotonic();
        let result = handle.sandbox.specialise(&what).await;
        let took = self.clock.monotonic().saturating_sub(begun);
        result.map_err(|error| match error {
            SpecialiseError::Init { failure, stdout, stderr } => {
                CreationFailure::Init { failure, stdout, stderr, took }
            }
            SpecialiseError::Sandbox(error) => CreationFailure::Sandbox(error),
        })?;
        self.metrics.initialised(version.runtime, took);
        let metrics = self.metrics.function(&version.function_name);
        // Specialised once in its life, so the place is free.
        let _ = handle.special.set(Special { _code: code, init: took, metrics, advisor: self.advisors.of(version) });
        handle.release();
        Ok(())
    }

    async fn end(self: Arc<Self>, id: SandboxId, handle: Option<Arc<Handle>>) {
        if let Some(handle) = handle {
            // A frozen process can't be told to end everywhere; that it can't be thawed is no reason to keep it.
            let _ = handle.hold();
            handle.sandbox.terminate(Duration::ZERO).await;
            // One that hangs in the kernel still takes what it was promised.
            handle.sandbox.ended().await;
        }
        self.apply(Event::Ended { sandbox: id });
    }

    /// Ends a sandbox that is not the pool's, in the background.
    pub fn end_other(&self, sandbox: Arc<dyn Sandbox>) {
        self.tasks.spawn(async move { sandbox.terminate(Duration::ZERO).await });
    }

    pub fn retire(self: &Arc<Self>, version: VersionKey) {
        self.apply(Event::Retire { version });
    }

    /// Returns at the next change of the pool, or at once if there was one since. One listener.
    pub async fn changed(&self) {
        self.watcher.get_or_init(Notify::new).notified().await;
    }

    pub fn reserve_id(&self) -> SandboxId {
        self.lock().pool.reserve_id()
    }

    pub fn with_pool<T>(&self, look: impl FnOnce(&Pool) -> T) -> T {
        look(&self.lock().pool)
    }

    /// The same, to change what no sandbox depends on.
    pub fn with_pool_mut<T>(&self, change: impl FnOnce(&mut Pool) -> T) -> T {
        change(&mut self.lock().pool)
    }

    /// Until every start, end and watch is over; after a drain that is when no sandbox is left.
    pub async fn join(&self) {
        self.tasks.join().await;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // The pool panics only if it is broken itself; going on with what it holds is better than ending every call.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Asked {
    Answered(Answer),
    Waiting(WaiterId, oneshot::Receiver<Answer>),
}
