//! Many records: written straight into the store, the way the daemon writes those of synchronous calls; then a daemon over them.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use faasd::adapters::embedded::Embedded;
use faasd::adapters::system_clock::SystemClock;
use faasd::config::Config;
use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{FunctionId, InvocationId, Owner};
use faasd::domain::invocation::{Invocation, Mode, Record, StoredRecord};
use faasd::domain::outcome::Status;
use faasd::domain::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::harness::control::{Control, run_request};
use super::harness::daemon::{Daemon, data_dir};
use super::harness::{process, sample};
use super::scene::{SETTLE, Scene, echo, median_ms, timed};

const LOOKS: usize = 200;
const LISTS: usize = 20;
/// When the writer is behind, it is given so long.
const PAUSE: Duration = Duration::from_millis(1);

pub fn measure(scene: &Scene) -> io::Result<()> {
    let count = scene.options.records;
    let case = format!("{count} records");
    if !scene.wants(&case) {
        return Ok(());
    }
    let daemon = scene.daemon(&[])?;
    daemon.control()?.deploy(&echo("echo"))?;
    let (_, function) = timed(&mut daemon.control()?, "GET", "/functions/echo")?;
    scene.tell(&case, "daemon RSS before", process::rss(daemon.pid()) as f64 / 1e6, "MB")?;
    latencies(scene, &format!("{case}, before"), &daemon, &[])?;
    let home = daemon.home();
    drop(daemon);
    let data = data_dir(&home);
    let begun = Instant::now();
    let ids = write(&data, &function, count)?;
    scene.tell(&case, "written", count as f64 / begun.elapsed().as_secs_f64(), "/s")?;
    scene.tell(&case, "store, bytes each", file_bytes(&data)? as f64 / count as f64, "bytes")?;
    let begun = Instant::now();
    let daemon = Daemon::start_in(home, &scene.options.executable, &[])?;
    scene.tell(&case, "start with them", begun.elapsed().as_secs_f64() * 1000.0, "ms")?;
    std::thread::sleep(SETTLE);
    latencies(scene, &case, &daemon, &ids)?;
    scene.tell(&case, "daemon RSS with them", process::rss(daemon.pid()) as f64 / 1e6, "MB")
}

/// Accepting one more, finding one, and reading the newest.
fn latencies(scene: &Scene, case: &str, daemon: &Daemon, ids: &[InvocationId]) -> io::Result<()> {
    let mut control = daemon.control()?;
    let lists = |control: &mut Control, path: &str| -> io::Result<f64> {
        Ok(median_ms((0..LISTS).map(|_| Ok(timed(control, "GET", path)?.0)).collect::<io::Result<_>>()?))
    };
    scene.tell(case, "newest 50", lists(&mut control, "/logs?limit=50")?, "ms")?;
    scene.tell(case, "newest 50 of the function", lists(&mut control, "/functions/echo/logs?limit=50")?, "ms")?;
    scene.tell(case, "newest 50 failed", lists(&mut control, "/logs?limit=50&status=FAILED")?, "ms")?;
    if !ids.is_empty() {
        let spread = (0..LOOKS).map(|nth| ids[nth * ids.len() / LOOKS].0);
        let ones = spread.map(|id| Ok(timed(&mut control, "GET", &format!("/status/{id}"))?.0));
        scene.tell(case, "one of them", median_ms(ones.collect::<io::Result<_>>()?), "ms")?;
    }
    let request = run_request(&daemon.key, "echo", "x-async: true\r\n");
    let mut accepts = Vec::new();
    for _ in 0..LOOKS {
        let sent = Instant::now();
        control.verdict(&request)?;
        accepts.push(sent.elapsed());
    }
    scene.tell(case, "async accept", median_ms(accepts), "ms")
}

/// Records of that function's owner, and their ids. One in a thousand has failed.
fn write(data: &Path, function: &Value, count: usize) -> io::Result<Vec<InvocationId>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let version = Arc::new(version(function)?);
    let other = io::Error::other::<faasd::adapters::embedded::OpenError>;
    let store = runtime
        .block_on(async { Embedded::open(data, &Config::default(), Arc::new(SystemClock::new())).map_err(other) })?;
    let mut ids = Vec::with_capacity(count);
    for nth in 0..count {
        let record = Arc::new(finished(&version, nth % 1000 == 0));
        ids.push(record.record.request_id);
        while store.invocations.finish_behind(record.clone()).is_err() {
            std::thread::sleep(PAUSE);
        }
    }
    // A durable change goes behind all of them.
    let last = Arc::new(finished(&version, false));
    runtime.block_on(async {
        store.invocations.finish(last).await.map_err(io::Error::other)?;
        store.close().await;
        Ok(ids)
    })
}

fn version(function: &Value) -> io::Result<Version> {
    let text = |name: &str| function[name].as_str().unwrap_or_default().to_owned();
    let id = Uuid::parse_str(&text("functionId")).map_err(io::Error::other)?;
    Ok(Version {
        function_id: FunctionId(id),
        owner: Owner::new(&text("owner")),
        function_name: text("name").as_str().into(),
        ..sample::version(Runtime::Python)
    })
}

fn finished(version: &Arc<Version>, failed: bool) -> StoredRecord {
    let at = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let invocation = Invocation {
        id: InvocationId(Uuid::now_v7()),
        version: version.clone(),
        payload: Bytes::from_static(b"{}"),
        model_id: None,
        attempt: 1,
        accepted_at: Timestamp(at),
        mode: Mode::Sync,
    };
    let mut record = Record::queued(&invocation);
    record.status = if failed { Status::Failed } else { Status::Success };
    record.started_at = Some(record.created_at);
    record.finished_at = Some(record.created_at);
    record.stdout = "one line that was printed\n".to_owned();
    record.result =
        serde_json::value::RawValue::from_string(r#"{"n":1,"text":"hello you."}"#.to_owned()).ok().map(Into::into);
    StoredRecord::new(version.owner.clone(), Mode::Sync, record)
}

fn file_bytes(data: &Path) -> io::Result<u64> {
    let of = |name: &str| fs::metadata(data.join(name)).map_or(0, |file| file.len());
    Ok(of("faasd.db") + of("faasd.db-wal"))
}
