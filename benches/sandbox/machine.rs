//! A driver with groups, host ids and a directory of its own, and functions that echo.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use faasd::config::{Config, Isolation};
use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{InvocationId, SandboxId};
use faasd::domain::invocation::{Invocation, Mode};
use faasd::domain::time::Timestamp;
use faasd::ports::sandbox::{Ending, Sandbox, SandboxDriver, SandboxError, SandboxKind, Specialisation};
use faasd::sandbox::LinuxSandboxes;
use uuid::Uuid;

use super::harness::sample;

pub struct Machine {
    pub driver: LinuxSandboxes,
    home: tempfile::TempDir,
    next: AtomicU64,
}

impl Machine {
    pub async fn open() -> Result<Self, Box<dyn Error>> {
        let home = tempfile::Builder::new().prefix("faasd-bench-").tempdir()?;
        let mut config = Config { data_dir: home.path().to_owned(), isolation: Isolation::Strict, ..Config::default() };
        config.sandbox.cgroup_prefix = format!("faasd-bench-{}", std::process::id());
        let path = std::env::var("PATH").unwrap_or_default();
        let executable = Path::new(env!("CARGO_BIN_EXE_faasd"));
        let driver = LinuxSandboxes::open(Arc::new(config), "sandbox", executable, &path).await?;
        Ok(Self { driver, home, next: AtomicU64::new(1) })
    }

    pub async fn start(&self, runtime: Runtime) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let id = SandboxId(self.next.fetch_add(1, Ordering::Relaxed));
        self.driver.start(id, SandboxKind::Runtime(runtime)).await
    }

    /// The directory with this runtime's echo.
    pub fn code(&self, runtime: Runtime) -> Result<PathBuf, Box<dyn Error>> {
        let directory = self.home.path().join(runtime.to_string());
        fs::create_dir_all(&directory)?;
        match runtime {
            Runtime::Python => {
                fs::write(directory.join("main.py"), "def handler(event, context):\n    return event\n")?
            }
            Runtime::Nodejs => {
                fs::write(directory.join("index.js"), "exports.handler = async (event) => event;\n")?;
            }
            _ => {
                let (source, program) = (self.home.path().join("echo.cpp"), directory.join("bootstrap"));
                fs::write(&source, include_str!("../harness/echo.cpp"))?;
                let built = Command::new("g++").args(["-O2", "-static", "-o"]).args([&program, &source]).status()?;
                if !built.success() {
                    return Err("g++ could not build the native echo".into());
                }
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(directory)
    }
}

pub fn version(runtime: Runtime) -> Arc<Version> {
    Arc::new(sample::version(runtime))
}

pub fn specialisation(runtime: Runtime, code_dir: &Path) -> Specialisation {
    Specialisation { version: version(runtime), code_dir: code_dir.to_owned(), init_timeout: Duration::from_secs(10) }
}

/// One call of the echo.
pub async fn call(sandbox: &dyn Sandbox, version: &Arc<Version>) -> Result<(), Box<dyn Error>> {
    let invocation = Invocation {
        id: InvocationId(Uuid::now_v7()),
        version: version.clone(),
        payload: Bytes::from_static(br#"{"n":1,"text":"hello"}"#),
        model_id: None,
        attempt: 1,
        accepted_at: Timestamp(0),
        mode: Mode::Sync,
    };
    match sandbox.invoke(&invocation, None).await.ending {
        Ending::Returned(_) => Ok(()),
        other => Err(format!("the echo ended otherwise: {other:?}").into()),
    }
}
