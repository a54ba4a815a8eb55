//! The same runtimes behind the walls: what the sandbox's filters and its root must leave them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use faasd::config::{Config, Isolation};
use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, InvocationId, Owner, SandboxId};
use faasd::domain::invocation::{Invocation, Mode};
use faasd::domain::time::Timestamp;
use faasd::ports::sandbox::{Ending, Report, Sandbox, SandboxDriver, SandboxKind, Specialisation};
use faasd::sandbox::LinuxSandboxes;

struct Walls {
    driver: LinuxSandboxes,
    dir: tempfile::TempDir,
    sandboxes: AtomicU32,
}

impl Walls {
    async fn raise() -> Self {
        static RAISED: AtomicU32 = AtomicU32::new(0);
        let number = RAISED.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: dir.path().to_owned(), isolation: Isolation::Auto, ..Config::default() };
        config.sandbox.cgroup_prefix = format!("faasd-shims-{}-{number}", std::process::id());
        config.sandbox.uid_first = 1_650_000_000 + std::process::id() % 10_000 * 1000 + number * 100;
        config.sandbox.uid_count = 100;
        let path = std::env::var("PATH").unwrap();
        let executable = Path::new(env!("CARGO_BIN_EXE_faasd"));
        let driver = LinuxSandboxes::open(Arc::new(config), "walls", executable, &path).await.unwrap();
        Self { driver, dir, sandboxes: AtomicU32::new(1) }
    }

    async fn sandbox(&self, kind: SandboxKind, files: &[(&str, &[u8])]) -> Arc<dyn Sandbox> {
        let id = self.sandboxes.fetch_add(1, Ordering::Relaxed);
        let code_dir = self.dir.path().join(format!("code-{id}"));
        fs::create_dir(&code_dir).unwrap();
        for (name, contents) in files {
            fs::write(code_dir.join(name), contents).unwrap();
            fs::set_permissions(code_dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let sandbox = self.driver.start(SandboxId(id.into()), kind).await.unwrap();
        let (SandboxKind::Runtime(runtime) | SandboxKind::Build(runtime)) = kind;
        let what = Specialisation { version: version(runtime), code_dir, init_timeout: Duration::from_secs(30) };
        sandbox.specialise(&what).await.unwrap();
        sandbox
    }
}

fn version(runtime: Runtime) -> Arc<Version> {
    Arc::new(Version {
        function_id: FunctionId(uuid::Uuid::from_u128(1)),
        number: 1,
        owner: Owner::new("admin"),
        function_name: "f".into(),
        description: String::new(),
        runtime,
        handler: None,
        memory_mb: 512,
        auto_memory: false,
        timeout_ms: 30_000,
        env: Default::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    })
}

async fn call(sandbox: &Arc<dyn Sandbox>, payload: &'static str) -> Report {
    let invocation = Invocation {
        id: InvocationId(uuid::Uuid::new_v4()),
        version: version(Runtime::Python),
        payload: Bytes::from_static(payload.as_bytes()),
        model_id: None,
        attempt: 1,
        accepted_at: Timestamp(u64::MAX / 2),
        mode: Mode::Sync,
    };
    sandbox.invoke(&invocation, None).await
}

fn returned(report: &Report) -> &str {
    match &report.ending {
        Ending::Returned(body) => std::str::from_utf8(body).unwrap(),
        other => panic!("{other:?} {:?}", report.stderr),
    }
}

async fn answers_twice(walls: &Walls, runtime: Runtime, files: &[(&str, &[u8])]) {
    let sandbox = walls.sandbox(SandboxKind::Runtime(runtime), files).await;
    for _ in 0..2 {
        let report = call(&sandbox, "[7]").await;
        assert_eq!(returned(&report), "[7]", "{runtime}");
        assert_eq!(report.reusable, Ok(()), "{runtime}");
    }
    sandbox.terminate(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn every_runtime_serves_call_after_call() {
    let walls = Walls::raise().await;
    answers_twice(&walls, Runtime::Python, &[("main.py", b"async def handler(event): return event")]).await;
    answers_twice(&walls, Runtime::Nodejs, &[("index.mjs", b"export const handler = async (event) => event")]).await;
    answers_twice(&walls, Runtime::Nodejs, &[("index.js", b"console.log(process.env.PAYLOAD)")]).await;
    let bootstrap = b"#!/usr/bin/env python3\nimport http.client, os\napi = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\n\
        while True:\n    api.request('GET', '/2018-06-01/runtime/invocation/next')\n    answer = api.getresponse()\n    event = answer.read()\n    \
        api.request('POST', '/2018-06-01/runtime/invocation/' + answer.getheader('Lambda-Runtime-Aws-Request-Id') + '/response', event)\n    \
        api.getresponse().read()\n";
    answers_twice(&walls, Runtime::Provided, &[("bootstrap", bootstrap)]).await;
    answers_twice(&walls, Runtime::Go, &[("main", b"#!/bin/sh\nexec cat\n")]).await;
    walls.driver.close().await;
}

#[tokio::test]
async fn a_program_is_compiled_and_runs() {
    let walls = Walls::raise().await;
    let source = include_bytes!("../../examples/hello-cpp/main.cpp");
    let build = walls.sandbox(SandboxKind::Build(Runtime::Cpp), &[("main.cpp", source)]).await;
    let report = call(&build, "null").await;
    assert_eq!(returned(&report), "null");
    let [(name, program)] = report.output_files.as_slice() else { panic!("{:?}", report.stderr) };
    assert_eq!(name, "main");
    build.terminate(Duration::from_secs(5)).await;

    let sandbox = walls.sandbox(SandboxKind::Runtime(Runtime::Cpp), &[("main", program)]).await;
    assert!(returned(&call(&sandbox, r#"{"name":"Ada"}"#).await).contains("Hello, Ada!"));
    sandbox.terminate(Duration::from_secs(5)).await;
    walls.driver.close().await;
}
