//! One sandbox as the worker drives it: specialised once, called one invocation at a time, measured, ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::cgroup::{Meter, Peak, Readings};
use super::channel::{Answer, Bounds, Channel, Exchange};
use super::driver::{Shared, scratch_at_start};
use super::process::{Process, Spawned};
use super::{environment, files};
use crate::domain::function::Runtime;
use crate::domain::invocation::Invocation;
use crate::domain::limits::MIB;
use crate::domain::outcome::{ErrorType, Failure, Pressure, Usage};
use crate::ports::sandbox::{
    Ending, Exit, LogSink, Report, Sandbox, SandboxError, SandboxKind, Specialisation, SpecialiseError,
};
use crate::ports::usage::{Sample, UsageReader};
use crate::runtime::compile;
use crate::runtime::wire::{self, Invoke, Kind, ResultMeta, RuntimeError, Specialise, Specialised};

/// After its socket closed: how long a process may take to be gone before it is said to have closed it on purpose.
const CLOSED_WAIT: Duration = Duration::from_millis(500);
/// A thread that was joined may be counted a moment longer, an orphan until it is collected.
const LEFTOVER_WAITS: [Duration; 4] =
    [Duration::from_micros(200), Duration::from_millis(1), Duration::from_millis(4), Duration::from_millis(15)];

/// Between two looks at the memory of a call whose kernel can't tell its peak: short beside a call that is worth resizing for, and
/// a hundred looks a second cost less than a thousandth of a processor.
const PEAK_SAMPLE: Duration = Duration::from_millis(10);

/// More tokens than this no call has; beyond it JSON's readers disagree about a number (RFC 8259, section 6).
const LLM_TOKENS_MAX: u64 = (1 << 53) - 1;

pub struct LinuxSandbox {
    shared: Arc<Shared>,
    process: Process,
    kind: SandboxKind,
    /// Of a build sandbox.
    compiler: Option<PathBuf>,
    slot: u32,
    state: Mutex<State>,
    /// Tasks alive when nothing runs.
    tasks_at_rest: AtomicU64,
    memory_mb: AtomicU32,
}

/// What one call at a time uses.
struct State {
    channel: Channel,
    output: Option<files::Output>,
    /// Counters at the end of the call before.
    last: Readings,
}

impl LinuxSandbox {
    /// Waits until the runtime says that it is ready.
    pub async fn ready(
        shared: Arc<Shared>,
        spawned: Spawned,
        kind: SandboxKind,
        compiler: Option<PathBuf>,
    ) -> Result<Self, SandboxError> {
        let Spawned { process, mut channel, output, slot, .. } = spawned;
        let timeout = Duration::from_millis(shared.config.sandbox.start_timeout_ms);
        let bounds = Bounds { due: Kind::Ready, body_bytes: 0, output_bytes: 4096, log_bytes: 0 };
        let gone = async {
            process.wait().await;
        };
        let exchanged = tokio::time::timeout(timeout, channel.exchange(&[], &[], bounds, None, gone)).await;
        let failed = |cause: String| SandboxError::Failed { step: "start the runtime", cause };
        let exchange = exchanged.map_err(|_| failed(format!("not ready within {} ms", timeout.as_millis())))?;
        let cause = match exchange.answer {
            Answer::Frame { .. } => None,
            // No user code has run yet: this is another release's runtime.
            Answer::Violated(how) => Some(format!("the runtime {how}; if faasd was replaced while it ran, restart it")),
            Answer::TooLarge(_) | Answer::Closed | Answer::Spoiled(_) => Some(String::new()),
        };
        if let Some(cause) = cause {
            process.terminate(Duration::ZERO).await;
            let exit = process.wait().await.exit;
            let first = if cause.is_empty() { exit.to_string() } else { cause };
            return Err(failed(format!("{first}: {}", exchange.stderr.text.trim_end())));
        }
        let last = process.group.meter().readings();
        let tasks = AtomicU64::new(process.group.meter().tasks().unwrap_or(0));
        Ok(Self {
            shared,
            process,
            kind,
            compiler,
            slot,
            state: Mutex::new(State { channel, output, last }),
            tasks_at_rest: tasks,
            memory_mb: AtomicU32::new(0),
        })
    }

    fn bounds(&self, due: Kind, body_bytes: u64) -> Bounds {
        let limits = &self.shared.config.limits;
        Bounds { due, body_bytes, output_bytes: limits.output_bytes, log_bytes: limits.log_bytes }
    }

    /// How it ended, if it has or is about to.
    async fn exit_soon(&self) -> Option<Exit> {
        tokio::time::timeout(CLOSED_WAIT, self.process.wait()).await.ok().map(|ended| ended.exit)
    }

    /// Whether something runs that did not run before the call. `serving`: a native program is to stay.
    async fn leftovers(&self, serving: bool) -> Result<(), &'static str> {
        if self.is_at_rest(serving) {
            return Ok(());
        }
        for wait in LEFTOVER_WAITS {
            tokio::time::sleep(wait).await;
            if self.is_at_rest(serving) {
                return Ok(());
            }
        }
        Err("leftover_process")
    }

    fn is_at_rest(&self, serving: bool) -> bool {
        let group = &self.process.group;
        let Some(alive) = group.meter().tasks() else { return true };
        if alive <= self.tasks_at_rest.load(Ordering::Relaxed) {
            return true;
        }
        // Programs like Go's start threads as they need them, and those are no second call's business: there, processes count.
        let is_native = matches!(self.kind, SandboxKind::Runtime(Runtime::Provided | Runtime::Go | Runtime::Cpp));
        let at_rest = is_native && group.processes() <= NATIVE_PROCESSES + usize::from(serving);
        if at_rest {
            self.tasks_at_rest.store(alive, Ordering::Relaxed);
        }
        at_rest
    }

    async fn report(&self, state: &mut State, exchange: Exchange, id: &str, began: Instant) -> Report {
        let mut handler_us = 0;
        let mut llm_token_count = None;
        let mut serving = false;
        let mut reusable = Ok(());
        let ending = match exchange.answer {
            Answer::Frame { meta, body } => match serde_json::from_slice::<ResultMeta>(&meta) {
                Ok(meta) if meta.id == id => {
                    // Its word on itself, within what can be.
                    handler_us = meta.handler_us.min(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                    llm_token_count = meta.llm_tokens.map(|tokens| tokens.min(LLM_TOKENS_MAX));
                    serving = meta.serving;
                    match meta.error {
                        None => Ending::Returned(body),
                        Some(error) => Ending::Raised { failure: failure(error), exit_code: meta.exit_code },
                    }
                }
                Ok(_) => violated(&mut reusable, "answered for another invocation".to_owned()),
                Err(error) => violated(&mut reusable, format!("sent a result that can't be read: {error}")),
            },
            Answer::TooLarge(bytes) => {
                reusable = Err("result_too_large");
                Ending::ResultTooLarge(bytes)
            }
            Answer::Violated(how) => violated(&mut reusable, how),
            Answer::Spoiled(why) => {
                reusable = Err("spoiled");
                Ending::Spoiled(why)
            }
            Answer::Closed => match self.exit_soon().await {
                Some(exit) => {
                    reusable = Err("died");
                    Ending::Died(exit)
                }
                None => violated(&mut reusable, "closed its socket".to_owned()),
            },
        };
        let meter = self.process.group.meter();
        let (readings, peak) = match self.process.ended() {
            Some(ended) => (ended.readings, ended.peak),
            None if matches!(ending, Ending::Returned(_)) => {
                (meter.readings_after(began.elapsed(), &state.last), meter.peak())
            }
            None => (meter.readings(), meter.peak()),
        };
        let usage = difference(state.last, readings, peak);
        let killed_for_memory = readings.oom_kills > state.last.oom_kills;
        state.last = readings;
        if reusable.is_ok() {
            reusable = self.leftovers(serving).await;
        }
        let ending = match ending {
            // Whatever was answered: where the kernel ends the whole group at once, nobody would be left to answer.
            Ending::Returned(_) | Ending::Raised { .. } if killed_for_memory => {
                reusable = Err("out_of_memory");
                Ending::Died(Exit { out_of_memory: true, ..Exit::default() })
            }
            // Not for what an earlier call of this sandbox lost to the want of memory.
            Ending::Died(exit) => Ending::Died(Exit { out_of_memory: exit.out_of_memory && killed_for_memory, ..exit }),
            other => other,
        };
        let output_files = self.output_files(state, &mut reusable);
        Report {
            ending,
            stdout: exchange.stdout,
            stderr: exchange.stderr,
            full_log: exchange.full_log,
            usage,
            handler_us,
            llm_token_count,
            output_files,
            reusable,
        }
    }

    fn output_files(&self, state: &State, reusable: &mut Result<(), &'static str>) -> Vec<(String, Bytes)> {
        let limits = &self.shared.config.limits;
        match &state.output {
            Some(output) if !output.is_empty() => {
                let bounds = files::Bounds { files: limits.output_files as usize, bytes: limits.output_files_bytes };
                let taken = output.take(bounds);
                if !output.is_empty() {
                    *reusable = reusable.and(Err("output_left"));
                }
                taken
            }
            _ => Vec::new(),
        }
    }
}

/// First process and runner; a program that serves is one more.
const NATIVE_PROCESSES: usize = 2;

fn violated(reusable: &mut Result<(), &'static str>, how: String) -> Ending {
    *reusable = Err("protocol");
    Ending::Violated(how)
}

/// A runtime's word on a failure, in ours. The runner reports a program killed by a signal as `Crashed`.
fn failure(error: RuntimeError) -> Failure {
    let RuntimeError { error_type, error_message, stack_trace } = error;
    let (kind, message) = match error_type.as_str() {
        "Crashed" => (ErrorType::Crashed, error_message),
        wire::OUTPUT_TOO_LARGE => (ErrorType::OutputTooLarge, error_message),
        "" | "ExitError" => (ErrorType::FunctionError, error_message),
        name if error_message.is_empty() => (ErrorType::FunctionError, name.to_owned()),
        name => (ErrorType::FunctionError, format!("{name}: {error_message}")),
    };
    Failure { error_type: kind, message, stack_trace }
}

fn difference(before: Readings, after: Readings, peak: Peak) -> Usage {
    let pressure = after.pressure.map(|after| {
        let before = before.pressure.unwrap_or_default();
        Pressure {
            cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
            memory_us: after.memory_us.saturating_sub(before.memory_us),
            io_us: after.io_us.saturating_sub(before.io_us),
        }
    });
    Usage {
        peak_memory_bytes: peak.bytes,
        peak_sampled: peak.sampled,
        cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
        throttled_us: after.throttled_us.saturating_sub(before.throttled_us),
        disk_read_bytes: after.read_bytes.saturating_sub(before.read_bytes),
        disk_write_bytes: after.write_bytes.saturating_sub(before.write_bytes),
        pressure,
    }
}

/// Looks at the memory while a call runs, where the kernel can't tell its peak afterwards.
async fn sampling<T>(meter: &Meter, call: impl Future<Output = T>) -> T {
    if !meter.wants_samples() {
        return call.await;
    }
    let mut call = std::pin::pin!(call);
    loop {
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            () = tokio::time::sleep(PEAK_SAMPLE) => meter.sample_peak(),
        }
    }
}

fn init_failure(mut failure: Failure) -> Failure {
    failure.error_type = ErrorType::InitError;
    failure
}

impl UsageReader for LinuxSandbox {
    fn sample(&self) -> Option<Sample> {
        if self.process.ended().is_some() {
            return None;
        }
        Some(self.process.group.meter().sample())
    }
}

#[async_trait]
impl Sandbox for LinuxSandbox {
    async fn specialise(&self, what: &Specialisation) -> Result<(), SpecialiseError> {
        let version = &what.version;
        let mut state = self.state.lock().await;
        let failed = |step: &'static str, cause: String| SpecialiseError::Sandbox(SandboxError::Failed { step, cause });
        let scratch_mb = self.shared.config.limits.scratch_mb(version.runtime, version.memory_mb);
        let scratch = files::scratch(u64::from(scratch_mb) * MIB);
        let output = state.output.as_ref().filter(|_| scratch != scratch_at_start(&self.shared.config));
        let scratch = output.map(|output| Ok((scratch, output.handle()?))).transpose();
        let scratch = scratch.map_err(|error: std::io::Error| failed("size /tmp", error.to_string()))?;
        let mounted = self.shared.launcher.mount_code(self.slot, what.code_dir.clone(), scratch);
        let limited = async { self.process.group.limit(&self.shared.limits(version.memory_mb)) };
        // The launcher works meanwhile. Nothing of the function's has run before both are done.
        let (mounted, limited) = tokio::join!(mounted, limited);
        mounted.map_err(SpecialiseError::Sandbox)?;
        limited.map_err(|error| failed("limit the sandbox", error.to_string()))?;
        self.memory_mb.store(version.memory_mb, Ordering::Relaxed);
        let build = match (self.kind, &self.compiler) {
            (SandboxKind::Build(runtime), Some(compiler)) => Some(compile::arguments(runtime, compiler)),
            _ => None,
        };
        let meta = Specialise {
            task_root: environment::TASK_ROOT.to_owned(),
            runtime: version.runtime,
            handler: version.handler.clone(),
            env: environment::of(version),
            function_name: version.function_name.to_string(),
            function_id: version.function_id.to_string(),
            function_version: version.number,
            memory_mb: version.memory_mb,
            timeout_ms: version.timeout_ms,
            build,
        };
        let head = wire::head(Kind::Specialise, &meta, 0)
            .map_err(|error| failed("describe the function", error.to_string()))?;
        let gone = async {
            self.process.wait().await;
        };
        let exchange = state.channel.exchange(&head, &[], self.bounds(Kind::Specialised, 0), None, gone);
        let Ok(Exchange { answer, stdout, stderr, .. }) = tokio::time::timeout(what.init_timeout, exchange).await
        else {
            let message = format!("the code did not load within {} ms", what.init_timeout.as_millis());
            let failure = Failure::new(ErrorType::InitError, message);
            return Err(SpecialiseError::Init { failure, stdout: Default::default(), stderr: Default::default() });
        };
        let failure = match answer {
            Answer::Frame { meta, .. } => match serde_json::from_slice::<Specialised>(&meta) {
                Ok(Specialised { error: None }) => None,
                Ok(Specialised { error: Some(error) }) => Some(init_failure(failure(error))),
                Err(error) => {
                    Some(Failure::new(ErrorType::InitError, format!("the runtime's answer can't be read: {error}")))
                }
            },
            Answer::Closed => Some(match self.exit_soon().await {
                Some(exit) if exit.out_of_memory => Failure::new(
                    ErrorType::OutOfMemory,
                    format!("out of memory while loading: the limit is {} MB", version.memory_mb),
                ),
                Some(exit) => {
                    Failure::new(ErrorType::InitError, format!("the runtime ended while loading the code: {exit}"))
                }
                None => Failure::new(ErrorType::InitError, "the code closed the runtime's socket while loading"),
            }),
            Answer::Violated(how) => {
                Some(Failure::new(ErrorType::InitError, format!("the code broke the runtime's protocol: it {how}")))
            }
            Answer::TooLarge(_) => {
                Some(Failure::new(ErrorType::InitError, "the code broke the runtime's protocol while loading"))
            }
            Answer::Spoiled(why) => return Err(failed("give the sandbox its function", format!("it {why}"))),
        };
        if let Some(failure) = failure {
            return Err(SpecialiseError::Init { failure, stdout, stderr });
        }
        state.last = self.process.group.meter().readings();
        self.tasks_at_rest.store(self.process.group.meter().tasks().unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    async fn invoke(&self, invocation: &Invocation, log: Option<&dyn LogSink>) -> Report {
        let mut state = self.state.lock().await;
        let mut buffer = uuid::Uuid::encode_buffer();
        let id: &str = invocation.id.0.hyphenated().encode_lower(&mut buffer);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
        let meta =
            Invoke { id, deadline_ms: now + invocation.version.timeout_ms, model_id: invocation.model_id.as_deref() };
        let meter = self.process.group.meter();
        meter.begin_call();
        let began = Instant::now();
        let exchange = match wire::head(Kind::Invoke, &meta, invocation.payload.len()) {
            Ok(head) => {
                let bounds = self.bounds(Kind::Result, self.shared.config.limits.result_bytes);
                let gone = async {
                    self.process.wait().await;
                };
                let exchange = state.channel.exchange(&head, &invocation.payload, bounds, log, gone);
                sampling(meter, exchange).await
            }
            Err(error) => Exchange {
                answer: Answer::Violated(error.to_string()),
                stdout: Default::default(),
                stderr: Default::default(),
                full_log: None,
            },
        };
        self.report(&mut state, exchange, id, began).await
    }

    async fn terminate(&self, grace: Duration) {
        self.process.terminate(grace).await;
    }

    fn freeze(&self) -> Result<(), SandboxError> {
        self.process.group.freeze().map_err(|error| SandboxError::Failed { step: "freeze", cause: error.to_string() })
    }

    fn thaw(&self) -> Result<(), SandboxError> {
        self.process.group.thaw().map_err(|error| SandboxError::Failed { step: "thaw", cause: error.to_string() })
    }

    async fn ended(&self) -> Exit {
        self.process.wait().await.exit
    }
}
