//! Every example deployed and called through the HTTP API, sync, async and as a stream.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::archive::zip_with_modes;
use crate::support::daemon::Daemon;
use crate::support::platform::zipped;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The folder as an archive: names below it, permissions, contents.
fn pack(dir: &Path) -> Vec<u8> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(dir).expect("below it").to_string_lossy().into_owned();
            let mode = fs::metadata(&path).expect("its metadata").permissions().mode() & 0o777;
            files.push((name, mode, fs::read(&path).expect("its contents")));
        }
    }
    files.sort();
    zip_with_modes(files.iter().map(|(name, mode, bytes)| (name.as_str(), *mode, bytes.as_slice())))
}

async fn deploy_and_call(runtime: &str) {
    let daemon = Daemon::start().await;
    let name = format!("hello-{runtime}");
    let answer = daemon.post("/functions", &zipped(&name, runtime, &pack(&example(&name)))).send().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let input = json!({ "name": "Ada" });
    let greets = |record: &Value| {
        assert_eq!(record["status"], "SUCCESS", "{record}");
        assert!(record["result"].to_string().contains("Ada"), "greets whom it was told: {record}");
    };

    let first = daemon.call(&name, &input).await;
    greets(&first);
    let second = daemon.call(&name, &input).await;
    greets(&second);
    assert_eq!(second["startType"], "WARM", "{second}");

    let job = daemon.submit(&name, &input).await;
    greets(&daemon.wait_final(&job).await);

    let events = daemon.run(&name, &input).events().await.rest().await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert!(kinds.starts_with(&["queued", "started"]) && kinds.ends_with(&["result"]), "{kinds:?}");
    greets(&events.last().expect("events").json());
}

#[tokio::test]
async fn python_says_hello() {
    deploy_and_call("python").await;
}

#[tokio::test]
async fn nodejs_says_hello() {
    deploy_and_call("nodejs").await;
}

#[tokio::test]
async fn provided_says_hello() {
    deploy_and_call("provided").await;
}

/// Needs a Go compiler, which `make test` installs: its absence is a failure, not a pass.
#[tokio::test]
async fn go_says_hello() {
    deploy_and_call("go").await;
}

#[tokio::test]
async fn cpp_says_hello() {
    deploy_and_call("cpp").await;
}
