//! Invocations: the request, and the record of what became of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::function::Version;
use super::ids::{Digest, FunctionId, InvocationId, Owner, WorkerId};
use super::outcome::{ErrorType, Failure, Lost, Outcome, OutputFile, Pressure, StartType, Status, forget};
use super::time::Timestamp;

/// One request to run one version, ready to be executed.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub id: InvocationId,
    pub version: Arc<Version>,
    /// JSON, checked to be so when it was accepted.
    pub payload: Bytes,
    pub model_id: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
    pub accepted_at: Timestamp,
    pub mode: Mode,
}

/// Whether somebody waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Sync,
    Async,
}

/// Where the time of an invocation went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimingsMs {
    pub queue_ms: f64,
    pub acquire_ms: f64,
    pub init_ms: f64,
    pub handler_ms: f64,
    pub total_ms: f64,
}

/// The invocation record: what `/status`, the logs and a synchronous answer show. Field names are the public contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub request_id: InvocationId,
    pub function_id: FunctionId,
    pub function_name: Arc<str>,
    pub version: u32,
    pub status: Status,
    pub result: Option<Arc<RawValue>>,
    pub stdout: String,
    pub stderr: String,
    pub exit_code: Option<i32>,
    pub error_type: Option<ErrorType>,
    pub error_message: Option<String>,
    pub stack_trace: Option<Vec<String>>,
    pub worker_id: Option<WorkerId>,
    pub start_type: Option<StartType>,
    pub attempt: u32,
    pub duration_ms: Option<f64>,
    pub handler_duration_ms: Option<f64>,
    pub timings: TimingsMs,
    pub peak_memory_bytes: Option<u64>,
    /// Present where this kernel can't tell the peak of one call: the highest of a few samples.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub peak_memory_sampled: bool,
    pub allocated_memory_mb: u32,
    pub cpu_us: Option<u64>,
    pub throttled_us: Option<u64>,
    pub disk_read: Option<u64>,
    pub disk_write: Option<u64>,
    /// Present where the kernel keeps the account for each sandbox.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pressure: Option<Pressure>,
    /// Sandboxes have no network, so these are 0 once the call has run.
    pub network_rx: Option<u64>,
    pub network_tx: Option<u64>,
    pub output_files: Vec<OutputFile>,
    pub llm_token_count: Option<u64>,
    pub optimization_tip: Option<Arc<str>>,
    pub recommended_memory_mb: Option<u32>,
    pub estimated_savings: Option<Arc<str>>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Present where this invocation runs a dead letter again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replay_of: Option<InvocationId>,
    /// Present where stdout or stderr above was cut: the whole text, as `…/logs/{requestId}` serves it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log_artifact: Option<Digest>,
}

/// Milliseconds with microseconds as the fraction.
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

impl Record {
    /// The record of an invocation that was just accepted.
    pub fn queued(invocation: &Invocation) -> Self {
        let version = &invocation.version;
        Self {
            request_id: invocation.id,
            function_id: version.function_id,
            function_name: version.function_name.clone(),
            version: version.number,
            status: Status::Queued,
            result: None,
            stdout: String::new(),
            stderr: String::new(),
            exit_code: None,
            error_type: None,
            error_message: None,
            stack_trace: None,
            worker_id: None,
            start_type: None,
            attempt: invocation.attempt,
            duration_ms: None,
            handler_duration_ms: None,
            timings: TimingsMs::default(),
            peak_memory_bytes: None,
            peak_memory_sampled: false,
            allocated_memory_mb: version.memory_mb,
            cpu_us: None,
            throttled_us: None,
            disk_read: None,
            disk_write: None,
            pressure: None,
            network_rx: None,
            network_tx: None,
            output_files: Vec::new(),
            llm_token_count: None,
            optimization_tip: None,
            recommended_memory_mb: None,
            estimated_savings: None,
            created_at: invocation.accepted_at,
            started_at: None,
            finished_at: None,
            replay_of: None,
            log_artifact: None,
        }
    }

    /// Marks an attempt as begun.
    pub fn start(&mut self, attempt: u32, worker: WorkerId, at: Timestamp) {
        self.status = Status::Running;
        self.attempt = attempt;
        self.worker_id = Some(worker);
        self.started_at = Some(at);
    }

    /// Writes the end of an attempt into the record.
    pub fn finish(&mut self, outcome: Outcome, at: Timestamp) {
        self.status = outcome.status;
        self.result = outcome.result;
        self.exit_code = outcome.exit_code;
        self.stdout = outcome.stdout.text;
        self.stderr = outcome.stderr.text;
        self.log_artifact = outcome.log_artifact;
        if let Some(Failure { error_type, message, stack_trace }) = outcome.failure {
            self.error_type = Some(error_type);
            self.error_message = Some(message);
            self.stack_trace = (!stack_trace.is_empty()).then_some(stack_trace);
        } else {
            (self.error_type, self.error_message, self.stack_trace) = (None, None, None);
        }
        self.start_type = outcome.start_type;
        let t = outcome.timings;
        self.timings = TimingsMs {
            queue_ms: ms(t.queue_us),
            acquire_ms: ms(t.acquire_us),
            init_ms: ms(t.init_us),
            handler_ms: ms(t.handler_us),
            total_ms: ms(t.total_us),
        };
        self.duration_ms = Some(ms(t.total_us.saturating_sub(t.queue_us)));
        self.handler_duration_ms = Some(ms(t.handler_us));
        self.peak_memory_bytes = Some(outcome.usage.peak_memory_bytes);
        self.peak_memory_sampled = outcome.usage.peak_sampled;
        self.cpu_us = Some(outcome.usage.cpu_us);
        self.throttled_us = Some(outcome.usage.throttled_us);
        self.disk_read = Some(outcome.usage.disk_read_bytes);
        self.disk_write = Some(outcome.usage.disk_write_bytes);
        self.pressure = outcome.usage.pressure;
        self.network_rx = Some(0);
        self.network_tx = Some(0);
        self.output_files = outcome.output_files;
        self.llm_token_count = outcome.llm_token_count;
        if let Some(advice) = outcome.advice {
            self.optimization_tip = Some(advice.tip.clone());
            self.recommended_memory_mb = Some(advice.recommended_memory_mb);
            self.estimated_savings = advice.estimated_savings.clone();
        }
        if let Some(place) = outcome.place {
            self.worker_id = Some(place.worker);
            self.attempt = place.attempt;
        }
        self.finished_at = Some(at);
    }

    /// What it names in the artifact store.
    pub fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.log_artifact.into_iter().chain(self.output_files.iter().map(|file| file.sha256))
    }

    /// After the caller was answered: how the call ended stands, what is lost is named no more, and a line of stderr tells of a file.
    pub fn lose(&mut self, lost: &[Lost]) {
        for (name, _) in forget(&mut self.output_files, &mut self.log_artifact, lost) {
            if !self.stderr.is_empty() && !self.stderr.ends_with('\n') {
                self.stderr.push('\n');
            }
            self.stderr.push_str(&format!("[output file lost: {name} could not be stored]\n"));
        }
    }
}

/// What a record takes up as JSON, without its result and what was printed.
const RECORD_BYTES: usize = 1024;

/// A record with what only the platform needs to know of it.
#[derive(Debug)]
pub struct StoredRecord {
    pub owner: Owner,
    pub mode: Mode,
    pub record: Record,
    /// Once it was asked for; from then on nobody changes the record, but a clone of this.
    json: OnceLock<Bytes>,
}

impl Clone for StoredRecord {
    fn clone(&self) -> Self {
        Self::new(self.owner.clone(), self.mode, self.record.clone())
    }
}

impl StoredRecord {
    pub fn new(owner: Owner, mode: Mode, record: Record) -> Self {
        Self { owner, mode, record, json: OnceLock::new() }
    }

    /// What it takes up in memory, about: the part whose size a user decides, as it is and as JSON.
    pub fn bytes_held(&self) -> usize {
        let record = &self.record;
        let result = record.result.as_ref().map_or(0, |result| result.get().len());
        2 * (result + record.stdout.len() + record.stderr.len() + record.error_message.as_ref().map_or(0, String::len))
    }

    /// The record as the caller gets it and the store keeps it: written once for both.
    pub fn json(&self) -> serde_json::Result<Bytes> {
        if let Some(json) = self.json.get() {
            return Ok(json.clone());
        }
        let record = &self.record;
        let result = record.result.as_ref().map_or(0, |result| result.get().len());
        let mut json = Vec::with_capacity(RECORD_BYTES + result + record.stdout.len() + record.stderr.len());
        serde_json::to_writer(&mut json, record)?;
        Ok(self.json.get_or_init(|| Bytes::from(json)).clone())
    }
}
