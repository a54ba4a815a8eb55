//! The ports as the worker's tests need them: sandboxes that do what their payload says, a store and a queue in memory.
//!
//! Payloads: `"echo"`, `"raise"`, `"sleep 50"` (milliseconds, deaf to nothing), `"signal 11"`, `"exit 3"`, `"oom"`,
//! `"not json"`, `"too large"`, `"file"`, `"leftover"`. A function named `broken` does not load; `nostart` does not start.

mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::domain::function::Runtime;
use crate::domain::ids::SandboxId;
use crate::domain::invocation::Invocation;
use crate::domain::limits::MIB;
use crate::domain::outcome::{ErrorType, Failure, Output, Usage};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::sandbox::*;
use crate::ports::usage::{Sample, UsageReader};

use super::Packages;
pub use world::World;

pub const START: Duration = Duration::from_millis(5);
pub const INIT: Duration = Duration::from_millis(3);

#[derive(Default)]
pub struct FakeDriver {
    pub started: AtomicUsize,
    pub alive: Arc<AtomicUsize>,
    pub broken: AtomicBool,
}

pub struct FakeSandbox {
    kind: SandboxKind,
    alive: Arc<AtomicUsize>,
    frozen: AtomicBool,
    calls: AtomicUsize,
    looks: AtomicUsize,
    over: watch::Sender<Option<Exit>>,
}

#[async_trait]
impl SandboxDriver for FakeDriver {
    async fn start(&self, _: SandboxId, kind: SandboxKind) -> Result<Arc<dyn Sandbox>, SandboxError> {
        sleep(START).await;
        if self.broken.load(Ordering::SeqCst) {
            return Err(SandboxError::Failed { step: "clone", cause: "out of luck".to_owned() });
        }
        if matches!(kind, SandboxKind::Runtime(Runtime::Nodejs) | SandboxKind::Build(Runtime::Go)) {
            return Err(SandboxError::Unsupported("install it".to_owned()));
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(FakeSandbox { kind, alive: self.alive.clone(), ..FakeSandbox::idle() }))
    }
}

impl FakeSandbox {
    /// What it uses, always.
    pub const SAMPLE: Sample = Sample { memory_bytes: 1 << 20, cpu_us: 5000, tasks: 2 };

    /// One that no driver made.
    pub fn idle() -> Self {
        Self {
            kind: SandboxKind::Runtime(Runtime::Python),
            alive: Arc::new(AtomicUsize::new(1)),
            frozen: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            over: watch::Sender::new(None),
        }
    }

    /// How often it was sampled.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst) as u64
    }

    fn die(&self, exit: Exit) {
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(exit);
                self.alive.fetch_sub(1, Ordering::SeqCst);
            }
            first
        });
    }

    async fn act(&self, invocation: &Invocation) -> (Ending, Vec<(String, Bytes)>, Result<(), &'static str>) {
        let program: String = serde_json::from_slice(&invocation.payload).unwrap();
        let (verb, number) = program.split_once(' ').unwrap_or((&program, "0"));
        let number: i32 = number.parse().unwrap_or(0);
        let dies = |exit: Exit| {
            self.die(exit);
            (Ending::Died(exit), vec![], Err("died"))
        };
        match verb {
            "sleep" => {
                let mut over = self.over.subscribe();
                tokio::select! {
                    () = sleep(Duration::from_millis(number as u64)) => {}
                    exit = over.wait_for(Option::is_some) => return (Ending::Died(exit.unwrap().unwrap()), vec![], Err("died")),
                }
                (Ending::Returned(invocation.payload.clone()), vec![], Ok(()))
            }
            "raise" => {
                let failure = Failure::new(ErrorType::FunctionError, "ValueError: no");
                (Ending::Raised { failure, exit_code: None }, vec![], Ok(()))
            }
            "signal" => dies(Exit { signal: Some(number), ..Exit::default() }),
            "exit" => dies(Exit { code: Some(number), ..Exit::default() }),
            "oom" => dies(Exit { out_of_memory: true, ..Exit::default() }),
            "not" => (Ending::Returned(Bytes::from_static(b"{oops")), vec![], Ok(())),
            "too" => (Ending::ResultTooLarge(7_000_000), vec![], Ok(())),
            "file" => {
                let files = vec![("a.txt".to_owned(), Bytes::from_static(b"abc"))];
                (Ending::Returned(Bytes::from_static(b"1")), files, Ok(()))
            }
            "spoiled" => (Ending::Spoiled("had spoken unasked"), vec![], Err("spoiled")),
            "leftover" => (Ending::Returned(Bytes::from_static(b"1")), vec![], Err("leftover_process")),
            _ => (Ending::Returned(invocation.payload.clone()), vec![], Ok(())),
        }
    }
}

fn output(text: &str) -> Output {
    Output { text: text.to_owned(), truncated: false, total_bytes: text.len() as u64 }
}

impl UsageReader for FakeSandbox {
    fn sample(&self) -> Option<Sample> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.over.borrow().is_none().then_some(Self::SAMPLE)
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    async fn specialise(&self, what: &Specialisation) -> Result<(), SpecialiseError> {
        assert!(!self.frozen.load(Ordering::SeqCst), "specialised while frozen");
        assert!(what.code_dir.is_dir(), "code is there");
        sleep(INIT).await;
        if &*what.version.function_name == "broken" {
            let failure = Failure::new(ErrorType::InitError, "SyntaxError: line 1");
            return Err(SpecialiseError::Init { failure, stdout: output("loading"), stderr: output("") });
        }
        Ok(())
    }

    async fn invoke(&self, invocation: &Invocation, log: Option<&dyn LogSink>) -> Report {
        if let Some(log) = log {
            log.line(Stream::Stdout, "printed");
        }
        assert!(!self.frozen.load(Ordering::SeqCst), "called while frozen");
        assert!(self.over.borrow().is_none(), "called after its end");
        assert_eq!(self.calls.fetch_add(1, Ordering::SeqCst), 0, "one call at a time");
        let (ending, output_files, reusable) = match self.kind {
            SandboxKind::Build(Runtime::Cpp) => {
                let files = vec![("main".to_owned(), Bytes::from_static(b"ELF"))];
                (Ending::Returned(Bytes::new()), files, Ok(()))
            }
            _ => self.act(invocation).await,
        };
        self.calls.fetch_sub(1, Ordering::SeqCst);
        let usage = Usage { cpu_us: 100, peak_memory_bytes: 40 * MIB, ..Usage::default() };
        let (stdout, stderr) = (output("printed"), output("warned"));
        Report {
            ending,
            stdout,
            stderr,
            full_log: None,
            usage,
            handler_us: 42,
            llm_token_count: None,
            output_files,
            reusable,
        }
    }

    async fn terminate(&self, _: Duration) {
        sleep(Duration::from_millis(1)).await;
        self.die(Exit { signal: Some(15), ..Exit::default() });
    }

    fn freeze(&self) -> Result<(), SandboxError> {
        assert!(!self.frozen.swap(true, Ordering::SeqCst), "frozen twice");
        assert_eq!(self.calls.load(Ordering::SeqCst), 0, "frozen in mid-call");
        Ok(())
    }

    fn thaw(&self) -> Result<(), SandboxError> {
        assert!(self.frozen.swap(false, Ordering::SeqCst), "thawed for nothing");
        Ok(())
    }

    async fn ended(&self) -> Exit {
        self.over.subscribe().wait_for(Option::is_some).await.unwrap().unwrap()
    }
}

/// Follows tokio's paused time.
pub struct FakeClock(Instant);

impl FakeClock {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000).after(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

pub struct FakePackages(pub AtomicUsize);

impl Packages for FakePackages {
    fn unpack(&self, package: &[u8], into: &Path) -> Result<u64, String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if package == b"bad" {
            return Err("not a zip".to_owned());
        }
        let written = std::fs::write(into.join("main.py"), package);
        written.map(|()| package.len() as u64).map_err(|error| error.to_string())
    }

    fn add_file(&self, package: &[u8], name: &str, contents: &[u8], executable: bool) -> Result<Bytes, String> {
        assert!(executable);
        Ok([package, name.as_bytes(), contents].concat().into())
    }
}
