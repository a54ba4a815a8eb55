//! What became of one attempt: how it ended, what it printed, what it used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ids::{Digest, WorkerId};
use super::policy::advice::Advice;

/// The one vocabulary for where an invocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Queued,
    Running,
    Success,
    Failed,
    Timeout,
    Cancelled,
    /// Retries exhausted.
    Dead,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::Queued,
        Status::Running,
        Status::Success,
        Status::Failed,
        Status::Timeout,
        Status::Cancelled,
        Status::Dead,
    ];

    pub fn is_final(self) -> bool {
        !matches!(self, Status::Queued | Status::Running)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "QUEUED",
            Status::Running => "RUNNING",
            Status::Success => "SUCCESS",
            Status::Failed => "FAILED",
            Status::Timeout => "TIMEOUT",
            Status::Cancelled => "CANCELLED",
            Status::Dead => "DEAD",
        }
    }

    /// Reads the upper-case name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }
}

/// Why an invocation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorType {
    /// The handler raised, or the program exited with a failure of its own.
    FunctionError,
    /// The code could not be loaded: syntax error, import error, missing handler.
    InitError,
    OutOfMemory,
    Timeout,
    /// The process ended in mid-call; the message names the signal or the exit code.
    Crashed,
    OutputTooLarge,
    Cancelled,
    /// Ours, not the function's.
    PlatformError,
}

impl ErrorType {
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorType::FunctionError => "FunctionError",
            ErrorType::InitError => "InitError",
            ErrorType::OutOfMemory => "OutOfMemory",
            ErrorType::Timeout => "Timeout",
            ErrorType::Crashed => "Crashed",
            ErrorType::OutputTooLarge => "OutputTooLarge",
            ErrorType::Cancelled => "Cancelled",
            ErrorType::PlatformError => "PlatformError",
        }
    }
}

/// How the sandbox that ran an attempt was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StartType {
    /// A sandbox of this very version was idle.
    Warm,
    /// A generic sandbox of the runtime was waiting and was specialised.
    Prewarmed,
    /// One was created for this call.
    Cold,
    /// The call was waiting for a cold one when a returned one came first.
    Stolen,
}

impl StartType {
    pub fn as_str(self) -> &'static str {
        match self {
            StartType::Warm => "WARM",
            StartType::Prewarmed => "PREWARMED",
            StartType::Cold => "COLD",
            StartType::Stolen => "STOLEN",
        }
    }
}

/// What went wrong, in words for the function's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub error_type: ErrorType,
    /// `ValueError: no such city`, `killed by signal 11 (SIGSEGV)`.
    pub message: String,
    /// One frame a line, outermost first, in the user's own files.
    pub stack_trace: Vec<String>,
}

impl Failure {
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self { error_type, message: message.into(), stack_trace: Vec::new() }
    }
}

/// What one invocation used; not what its sandbox has used in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub peak_memory_bytes: u64,
    /// The peak was seen in samples only, so that a shorter one may have been missed.
    pub peak_sampled: bool,
    pub cpu_us: u64,
    pub throttled_us: u64,
    pub disk_read_bytes: u64,
    pub disk_write_bytes: u64,
    /// `None` where the kernel keeps no such account.
    pub pressure: Option<Pressure>,
}

/// How long at least one of the invocation's processes waited, in microseconds: for a processor, for memory to be reclaimed, for a
/// disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pressure {
    pub cpu_us: u64,
    pub memory_us: u64,
    pub io_us: u64,
}

/// Where the time went, in microseconds. The parts are measured by the daemon, except `handler`, which the runtime reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    pub queue_us: u64,
    pub acquire_us: u64,
    pub init_us: u64,
    pub handler_us: u64,
    pub total_us: u64,
}

/// A file that the function left in `/output`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path below `/output`.
    pub name: String,
    #[serde(rename = "sizeBytes")]
    pub size_bytes: u64,
    pub sha256: Digest,
}

/// Text that a function printed, as much as a record keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub text: String,
    pub truncated: bool,
    /// All that was written, kept or not.
    pub total_bytes: u64,
}

/// The end of an attempt.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `Success`, `Failed`, `Timeout` or `Cancelled`.
    pub status: Status,
    /// The handler's value.
    pub result: Option<Arc<RawValue>>,
    pub failure: Option<Failure>,
    pub exit_code: Option<i32>,
    pub stdout: Output,
    pub stderr: Output,
    /// The whole text, where the record's was cut.
    pub log_artifact: Option<Digest>,
    pub start_type: Option<StartType>,
    pub timings: Timings,
    pub usage: Usage,
    pub output_files: Vec<OutputFile>,
    pub llm_token_count: Option<u64>,
    /// What its version's last calls say about its memory.
    pub advice: Option<Arc<Advice>>,
    /// Where it ran, if that was not where its caller sent it from.
    pub place: Option<Place>,
}

/// The worker of another process, and which attempt the one that ended there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub worker: WorkerId,
    pub attempt: u32,
}

/// Something that an outcome names and that could not be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub sha256: Digest,
    /// A few words.
    pub why: String,
}

impl Lost {
    fn of(lost: &[Lost], digest: Digest) -> Option<&Lost> {
        lost.iter().find(|one| one.sha256 == digest)
    }
}

/// Takes what is lost out of what is named; the files that went.
pub(super) fn forget(files: &mut Vec<OutputFile>, log: &mut Option<Digest>, lost: &[Lost]) -> Vec<(String, String)> {
    log.take_if(|digest| Lost::of(lost, *digest).is_some());
    let mut gone = Vec::new();
    files.retain(|file| {
        let why = Lost::of(lost, file.sha256).map(|one| one.why.clone());
        why.map(|why| gone.push((file.name.clone(), why))).is_none()
    });
    gone
}

impl Outcome {
    /// What it names in the artifact store.
    pub fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.log_artifact.into_iter().chain(self.output_files.iter().map(|file| file.sha256))
    }

    /// Before anybody was told of it: an output file that is lost is the platform's failure. A log that is lost fails nothing, for the
    /// record keeps the beginning of what was printed.
    pub fn lose(&mut self, lost: &[Lost]) {
        let gone = forget(&mut self.output_files, &mut self.log_artifact, lost);
        if let Some((name, why)) = gone.into_iter().next()
            && self.failure.is_none()
        {
            let sentence = format!("store the output file {name}: {why}");
            self.failure = Some(Failure::new(ErrorType::PlatformError, sentence));
            (self.status, self.result) = (Status::Failed, None);
        }
    }

    /// An attempt that never reached user code, or got nothing back from it.
    pub fn without_execution(status: Status, failure: Failure) -> Self {
        Self {
            status,
            result: None,
            failure: Some(failure),
            exit_code: None,
            stdout: Output::default(),
            stderr: Output::default(),
            log_artifact: None,
            start_type: None,
            timings: Timings::default(),
            usage: Usage::default(),
            output_files: Vec::new(),
            llm_token_count: None,
            advice: None,
            place: None,
        }
    }
}
