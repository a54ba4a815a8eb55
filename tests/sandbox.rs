//! The sandbox driver by itself, without a daemon around it: real sandboxes, as root.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use faasd::config::{Config, Isolation};
use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, InvocationId, Owner, SandboxId};
use faasd::domain::invocation::{Invocation, Mode};
use faasd::domain::time::Timestamp;
use faasd::ports::sandbox::{Ending, Report, Sandbox, SandboxDriver, SandboxKind, Specialisation};
use faasd::sandbox::LinuxSandboxes;

/// A driver of its own: groups, host ids and directory that no other test has.
struct Rig {
    driver: LinuxSandboxes,
    dir: tempfile::TempDir,
    next: AtomicU32,
}

impl Rig {
    async fn open() -> Self {
        static RIGS: AtomicU32 = AtomicU32::new(0);
        let number = RIGS.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().to_owned(), isolation: Isolation::Strict, ..Config::default() };
        config.sandbox.cgroup_prefix = format!("faasd-test-{}-{number}", std::process::id());
        config.sandbox.uid_first = 1_700_000_000 + std::process::id() * 1000 + number * 100;
        config.sandbox.uid_count = 100;
        let path = std::env::var("PATH").unwrap();
        let executable = Path::new(env!("CARGO_BIN_EXE_faasd"));
        let driver = LinuxSandboxes::open(Arc::new(config), "rig", executable, &path).await.unwrap();
        Self { driver, dir, next: AtomicU32::new(1) }
    }

    async fn python(&self, source: &str) -> Arc<dyn Sandbox> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let sandbox = self.driver.start(SandboxId(id.into()), SandboxKind::Runtime(Runtime::Python)).await.unwrap();
        eprintln!("started in {:?}", begun.elapsed());
        let code_dir = self.dir.path().join(format!("code-{id}"));
        std::fs::create_dir(&code_dir).unwrap();
        std::fs::write(code_dir.join("main.py"), source).unwrap();
        let begun = Instant::now();
        sandbox
            .specialise(&Specialisation { version: version(), code_dir, init_timeout: Duration::from_secs(10) })
            .await
            .unwrap();
        eprintln!("specialised in {:?}", begun.elapsed());
        sandbox
    }
}

fn version() -> Arc<Version> {
    Arc::new(Version {
        function_id: FunctionId(uuid::Uuid::from_u128(1)),
        number: 1,
        owner: Owner::new("admin"),
        function_name: "f".into(),
        description: String::new(),
        runtime: Runtime::Python,
        handler: None,
        memory_mb: 128,
        timeout_ms: 5000,
        env: Default::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    })
}

async fn call(sandbox: &Arc<dyn Sandbox>, payload: &'static str) -> Report {
    let invocation = Invocation {
        id: InvocationId(uuid::Uuid::new_v4()),
        version: version(),
        payload: Bytes::from_static(payload.as_bytes()),
        model_id: None,
        attempt: 1,
        accepted_at: Timestamp(0),
        mode: Mode::Sync,
    };
    sandbox.invoke(&invocation, None).await
}

#[tokio::test]
async fn a_python_function_runs_isolated_and_keeps_its_state() {
    let rig = Rig::open().await;
    let sandbox = rig
        .python(
            "import os, json\nn = 0\ndef handler(event, context):\n    global n\n    n += 1\n    print('hello', n)\n    return {'event': event, 'n': n, 'uid': os.getuid(), 'pids': sorted(os.listdir('/proc'))[:0], 'root': sorted(os.listdir('/'))}\n",
        )
        .await;
    let first = call(&sandbox, r#"{"a": 1}"#).await;
    let Ending::Returned(body) = &first.ending else { panic!("{first:?}") };
    eprintln!("{}", String::from_utf8_lossy(body));
    assert_eq!(first.stdout.text, "hello 1\n");
    let begun = Instant::now();
    for n in 2..=1000 {
        let report = call(&sandbox, "null").await;
        assert_eq!(report.stdout.text, format!("hello {n}\n"));
        assert_eq!(report.reusable, Ok(()), "{report:?}");
    }
    eprintln!("a call in {:?}", begun.elapsed() / 999);
    let report = call(&sandbox, "null").await;
    eprintln!("{:?}", report.usage);
    sandbox.freeze().unwrap();
    sandbox.thaw().unwrap();
    sandbox.terminate(Duration::from_secs(1)).await;
    eprintln!("{:?}", sandbox.ended().await);
    rig.driver.close().await;
}
