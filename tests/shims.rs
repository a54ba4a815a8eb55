//! The shims and the native runner by themselves, without a sandbox around them: a process with the daemon's end of the socket here.

#![allow(clippy::disallowed_methods, reason = "stands in for the daemon: real clock, the environment's PATH")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod examples;
mod nodejs;
mod pad;
mod python;
mod runner;
mod sandboxed;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use faasd::domain::function::Runtime;
use faasd::runtime::shims;
use faasd::runtime::wire::{
    self, HEADER_BYTES, Header, Invoke, Kind, ResultMeta, RuntimeError, Specialise, Specialised,
};
use serde_json::Value;

/// Far beyond what anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime process and a task folder for it.
struct Rig {
    runtime: Runtime,
    dir: tempfile::TempDir,
    child: Child,
    socket: UnixStream,
    calls: AtomicU32,
}

/// What came back of a call.
#[derive(Debug)]
struct Answer {
    meta: ResultMeta,
    body: Vec<u8>,
}

impl Answer {
    fn value(&self) -> Value {
        assert_eq!(self.meta.error, None);
        serde_json::from_slice(&self.body).expect("the value is JSON")
    }

    fn error(&self) -> &RuntimeError {
        self.meta.error.as_ref().expect("an error")
    }
}

impl Rig {
    /// A runtime that has said READY, with these files for it.
    fn start(runtime: Runtime, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["task", "tmp", "output"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (name, text) in shims::FILES {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let shim = |name: &str| dir.path().join(name).display().to_string();
        let arguments: Vec<String> = match runtime {
            Runtime::Python => [&["python3"], shims::PYTHON_FLAGS]
                .concat()
                .iter()
                .map(|s| (*s).to_owned())
                .chain([shim(shims::PYTHON)])
                .collect(),
            Runtime::Nodejs => vec!["node".to_owned(), shim(shims::NODE)],
            _ => vec![env!("CARGO_BIN_EXE_faasd").to_owned(), "sandbox-runner".to_owned()],
        };
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let output = |name: &str| Stdio::from(fs::File::create(dir.path().join(name)).unwrap());
        let child = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0 0</dev/null; exec \"$@\"", "sh"])
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .unwrap();
        let mut rig = Self { runtime, dir, child, socket, calls: AtomicU32::new(0) };
        for (name, text) in files {
            rig.write(name, text);
        }
        assert_eq!(rig.receive().0, Kind::Ready);
        rig
    }

    /// A runtime that has loaded these files.
    fn loaded(runtime: Runtime, files: &[(&str, &str)]) -> Self {
        let mut rig = Self::start(runtime, files);
        assert_eq!(rig.specialise(None), None, "{}", rig.stderr());
        rig
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.task().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn task(&self) -> PathBuf {
        self.dir.path().join("task")
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    fn stdout(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    fn specialise(&mut self, handler: Option<&str>) -> Option<RuntimeError> {
        self.specialise_to(handler, None)
    }

    fn specialise_to(&mut self, handler: Option<&str>, build: Option<Vec<String>>) -> Option<RuntimeError> {
        let text = |path: &Path| path.display().to_string();
        let env = [
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("TMPDIR".to_owned(), text(&self.dir.path().join("tmp"))),
            ("HOME".to_owned(), text(&self.dir.path().join("tmp"))),
            ("OUTPUT_DIR".to_owned(), text(&self.output())),
            ("GREETING".to_owned(), "grüß dich".to_owned()),
        ];
        let specialise = Specialise {
            task_root: text(&self.task()),
            runtime: self.runtime,
            handler: handler.map(str::to_owned),
            env: env.into(),
            function_name: "hello".to_owned(),
            function_id: "6a0e1a3c-0000-4000-8000-000000000001".to_owned(),
            function_version: 3,
            memory_mb: 192,
            timeout_ms: 30_000,
            build,
        };
        self.send(&wire::head(Kind::Specialise, &specialise, 0).unwrap(), b"");
        let (kind, meta, _) = self.receive();
        assert_eq!(kind, Kind::Specialised);
        serde_json::from_slice::<Specialised>(&meta).unwrap().error
    }

    fn begin(&mut self, payload: &[u8]) -> String {
        let id = format!("00000000-0000-4000-8000-{:012}", self.calls.fetch_add(1, Ordering::Relaxed));
        let deadline_ms = (SystemTime::now() + Duration::from_secs(30)).duration_since(UNIX_EPOCH).unwrap().as_millis();
        let invoke = Invoke { id: &id, deadline_ms: deadline_ms as u64, model_id: Some("llama") };
        self.send(&wire::head(Kind::Invoke, &invoke, payload.len()).unwrap(), payload);
        id
    }

    fn call(&mut self, payload: impl AsRef<[u8]>) -> Answer {
        let id = self.begin(payload.as_ref());
        let (kind, meta, body) = self.receive();
        assert_eq!(kind, Kind::Result);
        let meta: ResultMeta = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta.id, id);
        Answer { meta, body }
    }

    /// Sends a call that the process does not survive.
    fn call_to_death(&mut self, payload: &str) -> ExitStatus {
        self.begin(payload.as_bytes());
        self.died()
    }

    fn died(&mut self) -> ExitStatus {
        let mut rest = Vec::new();
        let _ = self.socket.read_to_end(&mut rest); // a reset is an end as well
        assert_eq!(rest, b"", "no answer");
        self.child.wait().unwrap()
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        self.socket.write_all(&[head, body].concat()).unwrap();
    }

    fn receive(&mut self) -> (Kind, Vec<u8>, Vec<u8>) {
        let mut take = |bytes: usize| {
            let mut buffer = vec![0; bytes];
            if let Err(error) = self.socket.read_exact(&mut buffer) {
                let stderr = fs::read_to_string(self.dir.path().join("stderr")).unwrap();
                panic!("no frame: {error}; it printed: {stderr}");
            }
            buffer
        };
        let header = Header::decode(take(HEADER_BYTES).first_chunk().unwrap()).unwrap();
        let meta = take(usize::from(header.meta_bytes));
        (header.kind, meta, take(header.body_bytes as usize))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
