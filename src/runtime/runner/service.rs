//! The runner's states and its loop: what the daemon, the program and its Runtime API calls do to each other.

mod calls;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use std::os::unix::process::ExitStatusExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::api::{Api, ConnectionId};
use super::build;
use super::daemon::{Daemon, Frame};
use super::pad::{Fork, Pad};
use super::printed::Value;
use super::program::{self, Program, Start};
use crate::domain::function::Runtime;
use crate::runtime::wire::{Invoke, Kind, OUTPUT_TOO_LARGE, ResultMeta, RuntimeError, Specialise};

/// A generic runner that was left alone for so long is not about to be given its function, and makes ready for it.
const PAD_AFTER_MS: u8 = 5;
const DEFAULT_PATH: (&str, &str) = ("PATH", "/usr/local/bin:/usr/bin:/bin");

/// Why the runner ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// The daemon has hung up.
    HungUp,
    /// As the program that lived on has ended.
    Exited(u8),
    Killed(Signal),
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<nix::errno::Errno> for Stop {
    fn from(error: nix::errno::Errno) -> Self {
        Stop::Failed(error.into())
    }
}

/// What the loop woke up for.
enum Event {
    Daemon,
    Signal,
    Listener,
    Connection(ConnectionId),
    Stdin,
    Stdout,
    /// Nothing came, and there is something to do meanwhile.
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Started before the first call, or found to be asking for calls: stays, and its end is ours.
    Server,
    /// Started for each call; may still turn out to be a server.
    PerCall,
    /// The compiler.
    Build,
}

enum Phase {
    Generic,
    /// The program was started and has not asked for an invocation yet.
    Starting,
    Idle,
    Running(Running),
}

/// The call at hand.
pub(super) struct Running {
    pub id: String,
    pub deadline_ms: u64,
    pub model_id: Option<String>,
    payload: Vec<u8>,
    started: Instant,
    /// Whether a program that asked for it has it.
    handed_over: bool,
}

pub(super) struct Service {
    daemon: Daemon,
    signals: SignalFd,
    blocked: SigSet,
    stdout: File,
    api: Option<Api>,
    specialise: Option<Specialise>,
    life: Life,
    phase: Phase,
    program: Option<Program>,
    /// Until it was used once.
    fork: Option<Fork>,
    pad: Option<Pad>,
    /// SIGTERM came: the program has it too; when it ends, so do we.
    terminating: bool,
}

impl Service {
    pub fn new(socket: OwnedFd, fork: Fork) -> io::Result<Self> {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGCHLD);
        blocked.add(Signal::SIGTERM);
        blocked.thread_block()?;
        let signals = SignalFd::with_flags(&blocked, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // Past std's buffer: what the program printed must be out before its result.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            daemon: Daemon::new(socket),
            signals,
            blocked,
            stdout,
            api: None,
            specialise: None,
            life: Life::PerCall,
            phase: Phase::Generic,
            program: None,
            fork: Some(fork),
            pad: None,
            terminating: false,
        })
    }

    /// Serves until there is a reason to end.
    pub fn run(&mut self) -> Stop {
        let mut step = self.daemon.ready().map_err(Stop::from);
        loop {
            step = match step {
                Ok(()) => self.turn(),
                Err(stop) => return stop,
            };
        }
    }

    fn turn(&mut self) -> Result<(), Stop> {
        for event in self.wait()? {
            match event {
                Event::Daemon => {
                    if !self.daemon.fill()? {
                        return Err(Stop::HungUp);
                    }
                    while let Some(frame) = self.daemon.next()? {
                        self.frame(frame)?;
                    }
                }
                Event::Signal => self.signals_came()?,
                Event::Listener => self.api.as_mut().map_or(Ok(()), Api::accept)?,
                Event::Connection(id) => self.connection_is_readable(id)?,
                Event::Stdin => self.program.iter_mut().for_each(Program::feed),
                Event::Stdout => self.drain()?,
                // Without it the program is started in the usual way.
                Event::Quiet => self.pad = self.fork.take().and_then(|fork| Pad::make(fork).ok()),
            }
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        let mut events = vec![Event::Daemon, Event::Signal];
        let mut fds = vec![
            PollFd::new(self.daemon.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(api) = &self.api {
            events.push(Event::Listener);
            fds.push(PollFd::new(api.listener(), PollFlags::POLLIN));
            for (id, fd) in api.connections() {
                events.push(Event::Connection(id));
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
        }
        if let Some((stdin, _)) = self.program.as_ref().and_then(|program| program.stdin.as_ref()) {
            events.push(Event::Stdin);
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        if let Some(stdout) = self.program.as_ref().and_then(|program| program.stdout.as_ref()) {
            events.push(Event::Stdout);
            fds.push(PollFd::new(stdout.as_fd(), PollFlags::POLLIN));
        }
        let patience = if self.may_make_pad() { PAD_AFTER_MS.into() } else { PollTimeout::NONE };
        match poll(&mut fds, patience) {
            Ok(0) => return Ok(vec![Event::Quiet]),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        Ok(events.into_iter().zip(ready).filter_map(|(event, ready)| ready.then_some(event)).collect())
    }

    fn may_make_pad(&self) -> bool {
        self.fork.is_some() && matches!(self.phase, Phase::Generic)
    }

    // --- the daemon

    fn frame(&mut self, frame: Frame) -> Result<(), Stop> {
        match (frame.kind, &self.phase) {
            (Kind::Specialise, Phase::Generic) => {
                let specialise = serde_json::from_slice(&frame.meta).map_err(io::Error::from)?;
                match self.become_function(specialise) {
                    Err(error) => self.daemon.specialised(Some(error))?,
                    Ok(()) if matches!(self.phase, Phase::Starting) => self.look_after_program()?,
                    Ok(()) => self.daemon.specialised(None)?,
                }
                Ok(())
            }
            (Kind::Invoke, Phase::Idle) => {
                let invoke: Invoke<'_> = serde_json::from_slice(&frame.meta).map_err(io::Error::from)?;
                self.phase = Phase::Running(Running {
                    id: invoke.id.to_owned(),
                    deadline_ms: invoke.deadline_ms,
                    model_id: invoke.model_id.map(str::to_owned),
                    payload: frame.body,
                    started: Instant::now(),
                    handed_over: false,
                });
                self.begin()
            }
            (kind, _) => Err(io::Error::other(format!("the daemon sent {kind:?} out of order")).into()),
        }
    }

    /// Afterwards it is idle, or its program is starting and will say itself when it is ready: by asking for an invocation.
    fn become_function(&mut self, mut specialise: Specialise) -> Result<(), RuntimeError> {
        let failed = |step: &str, error: io::Error| platform_error(format!("{step}: {error}"));
        specialise.env.entry(DEFAULT_PATH.0.to_owned()).or_insert_with(|| DEFAULT_PATH.1.to_owned());
        if specialise.build.is_some() {
            self.life = Life::Build;
            build::add_environment(&mut specialise);
            let sources = build::directory(&specialise);
            build::copy_sources(Path::new(&specialise.task_root), &sources)
                .map_err(|error| failed("copy the sources", error))?;
        } else {
            let api = Api::listen().map_err(|error| failed("listen for the Runtime API", error))?;
            specialise.env.insert("AWS_LAMBDA_RUNTIME_API".to_owned(), api.address());
            self.api = Some(api);
        }
        let path = program_path(&specialise);
        let starts_now = specialise.runtime == Runtime::Provided && self.life != Life::Build;
        if self.life != Life::Build {
            program::check(&path)?;
        }
        self.specialise = Some(specialise);
        if starts_now {
            self.life = Life::Server;
            self.start_server(&path).map_err(|error| program::not_started(&path, &error))?;
            self.phase = Phase::Starting;
        } else {
            // Gone before we say that we are ready: what is there then counts as ours.
            self.pad.take().into_iter().for_each(Pad::dismiss);
            self.phase = Phase::Idle;
        }
        Ok(())
    }

    /// From the pad where there is one.
    fn start_server(&mut self, path: &Path) -> io::Result<()> {
        let (Some(pad), Some(specialise)) = (self.pad.take(), &self.specialise) else {
            return self.start_program(Command::new(path), None, false);
        };
        let pid = pad.launch(path, Path::new(&specialise.task_root), &specialise.env)?;
        self.program = Some(Program::launched(pid));
        Ok(())
    }

    fn start_program(&mut self, command: Command, input: Option<Vec<u8>>, captured: bool) -> io::Result<()> {
        let Some(specialise) = &self.specialise else { return Err(io::Error::other("not specialised")) };
        let sources = build::directory(specialise);
        let directory = if self.life == Life::Build { sources.as_path() } else { Path::new(&specialise.task_root) };
        let mut env = specialise.env.clone();
        if let Phase::Running(call) = &self.phase {
            env.insert("JOB_ID".to_owned(), call.id.clone());
            env.extend(call.model_id.clone().map(|model_id| ("MODEL_ID".to_owned(), model_id)));
            if program::fits_environment("PAYLOAD", &call.payload)
                && let Ok(payload) = String::from_utf8(call.payload.clone())
            {
                env.insert("PAYLOAD".to_owned(), payload);
            }
        }
        let start = Start { command, env: &env, directory, input, captured, blocked: &self.blocked };
        self.program = Some(Program::start(start)?);
        Ok(())
    }

    /// A call has come.
    fn begin(&mut self) -> Result<(), Stop> {
        let (command, path, input) = match (&self.phase, &self.specialise, self.life) {
            (Phase::Running(_), _, Life::Server) => return self.hand_over(),
            (Phase::Running(call), Some(specialise), Life::PerCall) => {
                let path = program_path(specialise);
                (Command::new(&path), path, Some(call.payload.clone()))
            }
            (Phase::Running(_), Some(specialise), Life::Build) => {
                let arguments = specialise.build.as_deref().unwrap_or_default();
                let Some((compiler, arguments)) = arguments.split_first() else {
                    return self.end(Err(platform_error("there is no compiler's command line".to_owned())), None);
                };
                let mut command = Command::new(compiler);
                command.args(arguments).stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
                (command, PathBuf::from(compiler), None)
            }
            _ => return Ok(()),
        };
        match self.start_program(command, input, self.life == Life::PerCall) {
            Ok(()) => self.look_after_program(),
            Err(error) => self.end(Err(program::not_started(&path, &error)), None),
        }
    }

    /// Sends the result of the call at hand.
    fn end(&mut self, value: Result<Vec<u8>, RuntimeError>, exit_code: Option<i32>) -> Result<(), Stop> {
        let Phase::Running(call) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        let (error, body) = match value {
            Ok(body) => (None, body),
            Err(error) => (Some(error), Vec::new()),
        };
        let handler_us = u64::try_from(call.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let serving = self.life == Life::Server;
        let meta = ResultMeta { id: call.id, error, exit_code, handler_us, llm_tokens: None, serving };
        Ok(self.daemon.result(meta, &body)?)
    }

    // --- the program

    fn drain(&mut self) -> io::Result<()> {
        let all_is_log = self.life == Life::Server || self.terminating;
        match &mut self.program {
            Some(program) => program.drain(&mut self.stdout, all_is_log),
            None => Ok(()),
        }
    }

    fn signals_came(&mut self) -> Result<(), Stop> {
        while let Some(signal) = self.signals.read_signal()? {
            if signal.ssi_signo == Signal::SIGTERM as u32 {
                self.terminating = true;
                match &self.program {
                    Some(program) => program.signal(Signal::SIGTERM),
                    None => return Err(Stop::Killed(Signal::SIGTERM)),
                }
                self.drain()?;
            }
        }
        self.look_after_program()
    }

    /// If the program has ended, does what that means.
    fn look_after_program(&mut self) -> Result<(), Stop> {
        let Some(program) = &mut self.program else { return Ok(()) };
        let Some(status) = program.ended()? else { return Ok(()) };
        self.drain()?;
        let program = self.program.take();
        if self.terminating {
            return Err(Stop::Killed(Signal::SIGTERM));
        }
        self.api.iter_mut().for_each(Api::close_all);
        match (self.life, &self.phase) {
            (Life::Server, Phase::Starting) => {
                let message = format!("bootstrap {} before it asked for an invocation", program::describe(status));
                Ok(self.daemon.specialised(Some(exit_error(status, message)))?)
            }
            (Life::Server, _) => Err(ended_as(status)),
            (Life::PerCall, _) => {
                let value = program.map(|program| self.value_of(program, status)).transpose()?;
                self.end(value.unwrap_or_else(|| Ok(b"null".to_vec())), status.code().filter(|code| *code != 0))
            }
            (Life::Build, _) => self.build_ended(status),
        }
    }

    /// What a program that ran for one call has to say.
    fn value_of(&mut self, mut program: Program, status: ExitStatus) -> io::Result<Result<Vec<u8>, RuntimeError>> {
        if !status.success() {
            program.printed.flush(&mut self.stdout)?;
            return Ok(Err(exit_error(status, program::describe(status))));
        }
        Ok(match program.printed.finish(&mut self.stdout)? {
            Value::Json(value) => Ok(value),
            Value::TooLong => Err(RuntimeError {
                error_type: OUTPUT_TOO_LARGE.to_owned(),
                error_message: "printed more than a result may be, and no JSON on the last line".to_owned(),
                stack_trace: Vec::new(),
            }),
        })
    }

    fn build_ended(&mut self, status: ExitStatus) -> Result<(), Stop> {
        let built = self.specialise.as_ref().is_some_and(|specialise| build::product(specialise).is_file());
        let result = match (status.success(), built) {
            (true, true) => Ok(b"null".to_vec()),
            (true, false) => Err(platform_error("the compiler made no program".to_owned())),
            (false, _) => Err(exit_error(status, format!("the compiler {}", program::describe(status)))),
        };
        self.end(result, status.code().filter(|code| *code != 0))
    }
}

fn program_path(specialise: &Specialise) -> PathBuf {
    let name = if specialise.runtime == Runtime::Provided { "bootstrap" } else { "main" };
    Path::new(&specialise.task_root).join(name)
}

/// How we end because the program did.
fn ended_as(status: ExitStatus) -> Stop {
    match status.signal().and_then(|number| Signal::try_from(number).ok()) {
        Some(signal) => Stop::Killed(signal),
        None => Stop::Exited(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
    }
}

fn exit_error(status: ExitStatus, error_message: String) -> RuntimeError {
    let error_type = if status.code().is_some() { "ExitError" } else { "Crashed" };
    RuntimeError { error_type: error_type.to_owned(), error_message, stack_trace: Vec::new() }
}

fn platform_error(error_message: String) -> RuntimeError {
    RuntimeError { error_type: "PlatformError".to_owned(), error_message, stack_trace: Vec::new() }
}
