//! Compiling at deploy: the sources in a build sandbox, once, and what it leaves as `main` into the package.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::domain::env::Env;
use crate::domain::function::{Runtime, Version};
use crate::domain::ids::{Digest, FunctionId, InvocationId, Owner};
use crate::domain::invocation::{Invocation, Mode};
use crate::domain::outcome::{Failure, Output};
use crate::domain::time::Timestamp;
use crate::ports::executor::{BuildError, ExecuteError};
use crate::ports::sandbox::{Ending, Report, Sandbox, SandboxError, SandboxKind, Specialisation, SpecialiseError};

use super::cancel::Entry;
use super::code_cache::{self, CodeError};
use super::execute::platform;
use super::sandboxes::Sandboxes;
use super::verdict::{self, Stop};
use super::{Phase, Worker};

/// What of a compiler's words is passed on.
const WORDS_BYTES_MAX: usize = 8 * 1024;
/// What the compiled program is called, in `/output` and in the package.
const PROGRAM: &str = "main";

/// Ends the directory with the sources, however the build ends.
struct Sources(PathBuf);

impl Drop for Sources {
    fn drop(&mut self) {
        code_cache::remove(&self.0);
    }
}

/// Ends the sandbox, also where the one who asked for the build is gone in the middle of it.
struct BuildSandbox {
    sandbox: Arc<dyn Sandbox>,
    sandboxes: Arc<Sandboxes>,
}

impl Drop for BuildSandbox {
    fn drop(&mut self) {
        self.sandboxes.end_other(self.sandbox.clone());
    }
}

impl Worker {
    pub(super) async fn compile(&self, runtime: Runtime, package: Bytes) -> Result<Bytes, BuildError> {
        let draining = || BuildError::Execute(ExecuteError::Draining);
        let _place = self.builds.acquire().await.map_err(|_| draining())?;
        if *self.phase.borrow() > Phase::Active {
            return Err(draining());
        }
        let dir = self.code.unpack(package.clone()).await.map_err(|error| match error {
            CodeError::Unpack(sentence) => BuildError::Rejected(sentence),
            error => BuildError::Execute(ExecuteError::Platform(error.to_string())),
        })?;
        let sources = Sources(dir.path);
        let call = self.calls.enter(InvocationId(Uuid::now_v7()));
        let _memory = self.sandboxes.lend(self.config.sandbox.build_memory_mb.into());
        let id = self.sandboxes.reserve_id();
        let sandbox = self.driver.start(id, SandboxKind::Build(runtime)).await.map_err(|error| match error {
            SandboxError::Unsupported(sentence) => BuildError::NoCompiler(sentence),
            error => BuildError::Execute(platform(&error)),
        })?;
        let sandbox = BuildSandbox { sandbox, sandboxes: self.sandboxes.clone() };
        let program = self.compile_in(&*sandbox.sandbox, runtime, &sources, &call).await?;
        drop(sandbox);
        let packages = self.code.packages().clone();
        let added = tokio::task::spawn_blocking(move || packages.add_file(&package, PROGRAM, &program, true)).await;
        added
            .map_err(|error| failed(&error.to_string()))?
            .map_err(|sentence| failed(&format!("add the program to its package: {sentence}")))
    }

    async fn compile_in(
        &self,
        sandbox: &dyn Sandbox,
        runtime: Runtime,
        sources: &Sources,
        call: &Entry<'_>,
    ) -> Result<Bytes, BuildError> {
        let version = Arc::new(self.build_version(runtime));
        let what = Specialisation {
            version: version.clone(),
            code_dir: sources.0.clone(),
            init_timeout: Duration::from_millis(self.config.sandbox.init_timeout_ms),
        };
        sandbox.specialise(&what).await.map_err(|error| match error {
            SpecialiseError::Init { failure, stderr, .. } => rejected(&failure, &stderr),
            SpecialiseError::Sandbox(SandboxError::Unsupported(sentence)) => BuildError::NoCompiler(sentence),
            SpecialiseError::Sandbox(error) => BuildError::Execute(platform(&error)),
        })?;
        let invocation = Invocation {
            id: call.id,
            version,
            payload: Bytes::from_static(b"null"),
            model_id: None,
            attempt: 1,
            accepted_at: self.clock.now(),
            mode: Mode::Sync,
        };
        match self.invoke(&invocation, sandbox, None, &call.cancel).await {
            (Some(report), stop) => program(report, stop, &invocation.version, self.config.limits.result_bytes),
            (None, _) => Err(failed("the compiler's sandbox gave no account")),
        }
    }

    /// The limits of a build as a version of its own.
    fn build_version(&self, runtime: Runtime) -> Version {
        Version {
            function_id: FunctionId(Uuid::nil()),
            number: 1,
            owner: Owner::new("faasd"),
            function_name: "build".into(),
            description: String::new(),
            runtime,
            handler: None,
            memory_mb: self.config.sandbox.build_memory_mb,
            auto_memory: false,
            timeout_ms: self.config.sandbox.build_timeout_ms,
            env: Env::default(),
            code: Digest([0; 32]),
            code_bytes: 0,
            created_at: Timestamp(0),
        }
    }
}

fn failed(why: &str) -> BuildError {
    BuildError::Execute(ExecuteError::Platform(why.to_owned()))
}

fn program(report: Report, stop: Option<Stop>, version: &Version, result_bytes_max: u64) -> Result<Bytes, BuildError> {
    let Report { ending, stderr, output_files, .. } = report;
    if let Some(failure) = verdict::of(ending_of(ending), stop, version, result_bytes_max).failure {
        return Err(rejected(&failure, &stderr));
    }
    let found = output_files.into_iter().find(|(name, _)| name == PROGRAM);
    found.map(|(_, bytes)| bytes).ok_or_else(|| failed("the compiler left no program"))
}

/// A build's value says nothing: it may be empty, which is no JSON.
fn ending_of(ending: Ending) -> Ending {
    match ending {
        Ending::Returned(_) => Ending::Returned(Bytes::from_static(b"null")),
        other => other,
    }
}

/// The compiler's own words where there are any, else what is known of its end.
fn rejected(failure: &Failure, stderr: &Output) -> BuildError {
    let words = stderr.text.trim();
    let text = if words.is_empty() { failure.message.as_str() } else { words };
    let end = text.floor_char_boundary(WORDS_BYTES_MAX);
    BuildError::Rejected(if end < text.len() { format!("{}\n[cut]", &text[..end]) } else { text.to_owned() })
}
