//! A disk that fills: what can be had again goes first, then what writes is refused, and all of it ends when there is room.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use serde_json::json;

use crate::support::archive::zip;
use crate::support::daemon::Daemon;
use crate::support::platform::{ECHO, inline, zipped};

const MIB: u64 = 1 << 20;
const DISK: u64 = 128 * MIB;
const FLOOR: u64 = 24 * MIB;
/// The daemon looks every two seconds.
const SOON: Duration = Duration::from_secs(20);

fn available(path: &Path) -> u64 {
    let found = statvfs(path).expect("a file system");
    found.blocks_available() as u64 * found.fragment_size() as u64
}

/// A file that leaves so much.
fn leave(dir: &Path, bytes: u64) {
    let ballast = dir.join("ballast");
    let _ = fs::remove_file(&ballast);
    let size = available(dir).checked_sub(bytes).expect("more is free than is to be left");
    fs::write(&ballast, vec![0_u8; size as usize]).expect("a large file");
}

async fn room_is(daemon: &Daemon, room: &str) {
    let since = Instant::now();
    loop {
        let ready = daemon.get("/ready").send().await;
        if ready.json()["dependencies"]["disk"]["room"] == room {
            return;
        }
        assert!(since.elapsed() < SOON, "the disk never became {room}: {}", ready.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_disk_that_fills_is_cleared_then_refuses_what_writes_and_recovers() {
    let daemon = Daemon::with("DISK__FREE_BYTES_MIN", FLOOR).on_disk_of(DISK).start().await;
    let data = daemon.data_dir();
    daemon.deploy_python("echo", ECHO).await;
    daemon.call("echo", &json!(1)).await;
    // Unpacked when it is deployed, and called by nobody.
    let padding = vec![7_u8; 8 * MIB as usize];
    daemon.deploy(zipped("unused", "python", &zip(&[("main.py", ECHO.as_bytes()), ("padding", &padding)]))).await;
    let unpacked = || fs::read_dir(data.join("code")).expect("unpacked code").count();
    let since = Instant::now();
    while unpacked() < 2 {
        assert!(since.elapsed() < SOON, "the second function was not unpacked");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    leave(&data, FLOOR + FLOOR / 2);
    room_is(&daemon, "low").await;
    let since = Instant::now();
    while unpacked() > 1 {
        assert!(since.elapsed() < SOON, "code that nobody uses stays on a disk that fills");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.deploy(inline("while-low", "python", ECHO)).await;

    leave(&data, FLOOR / 2);
    room_is(&daemon, "full").await;
    let refused = daemon.post("/functions", &inline("too-late", "python", ECHO)).send().await;
    assert_eq!(refused.refused(507).1, "DiskFull");
    let queued = daemon.run("echo", &json!(1)).header("x-async", "true").send().await;
    assert_eq!(queued.refused(503).1, "NoCapacity");
    assert!(queued.header("retry-after").is_some());
    assert_eq!(daemon.call("echo", &json!(2)).await["result"], 2, "who waits is served");
    assert_eq!(daemon.get("/ready").send().await.expect(200)["status"], "degraded");
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.sum("faasd_disk_room", &[]), 2.0);
    assert!(
        metrics.sum("faasd_disk_given_back_bytes_total", &["of=\"code\""]) >= padding.len() as f64,
        "{}",
        metrics.0
    );

    fs::remove_file(data.join("ballast")).expect("the ballast");
    room_is(&daemon, "ample").await;
    daemon.deploy(inline("in-time", "python", ECHO)).await;
    let job = daemon.submit("unused", &json!(3)).await;
    assert_eq!(daemon.wait_final(&job).await["result"], 3, "what was cleared away is unpacked again");
}
