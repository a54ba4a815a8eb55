//! Payloads of nearly the six megabytes that a synchronous call may carry: in alone, out alone, and both ways.

use std::io;
use std::time::Instant;

use serde_json::json;

use super::harness::answer::Verdict;
use super::harness::control::run_with;
use super::harness::process;
use super::scene::{SETTLE, Scene, median_ms};

const BYTES: usize = 6_000_000;
const CALLS: usize = 9;
const FUNCTIONS: [(&str, &str, usize); 3] = [
    ("in", "def handler(event, context):\n    return len(event)\n", BYTES),
    ("out", "def handler(event, context):\n    return 'x' * event\n", 0),
    ("in and out", "def handler(event, context):\n    return event\n", BYTES),
];

pub fn measure(scene: &Scene) -> io::Result<()> {
    let case = "payload of 6 MB";
    if !scene.wants(case) {
        return Ok(());
    }
    for (way, code, bytes) in FUNCTIONS {
        let case = format!("{case}, {way}");
        let daemon = scene.daemon(&[])?;
        let mut control = daemon.control()?;
        control.deploy(&json!({ "name": "f", "runtime": "python", "memoryMb": 512, "code": { "inline": code } }))?;
        let input = if bytes == 0 { BYTES.to_string() } else { format!("\"{}\"", "x".repeat(bytes)) };
        let request = run_with(&daemon.key, "f", "", &input);
        let before = process::rss(daemon.pid());
        process::forget_peak(daemon.pid());
        let mut took = Vec::new();
        for nth in 0..=CALLS {
            let sent = Instant::now();
            let verdict = control.verdict(&request)?;
            if !matches!(verdict, Verdict::Done { .. }) {
                return Err(io::Error::other(format!("{case}: {verdict:?}")));
            }
            // The first one starts the sandbox.
            if nth > 0 {
                took.push(sent.elapsed());
            }
        }
        scene.tell(&case, "time", median_ms(took), "ms")?;
        scene.tell(&case, "daemon RSS at most", process::rss_peak(daemon.pid()) as f64 / 1e6, "MB")?;
        std::thread::sleep(SETTLE);
        scene.tell(&case, "daemon RSS kept", (process::rss(daemon.pid()) as f64 - before as f64) / 1e6, "MB")?;
    }
    Ok(())
}
