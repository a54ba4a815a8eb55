//! What an idle platform weighs: the daemon's own memory, and that of its whole process tree, shared pages counted once.

use std::io;
use std::time::Duration;

use super::harness::process;
use super::round::Round;

/// Allocators and start-up work come to rest.
const SETTLE: Duration = Duration::from_secs(2);
const NO_SANDBOX: [(&str, &str); 3] =
    [("POOL__PREWARMED_PYTHON", "0"), ("POOL__PREWARMED_NODEJS", "0"), ("POOL__PREWARMED_NATIVE", "0")];

pub fn measure(round: &Round<'_>) -> io::Result<()> {
    if !round.wants("idle") {
        return Ok(());
    }
    let daemon = round.daemon(&NO_SANDBOX)?;
    std::thread::sleep(SETTLE);
    round.rows.add("idle, no sandbox: daemon RSS", process::rss(daemon.pid()) as f64 / 1e6, "MB")?;
    round.rows.add("idle, no sandbox: platform PSS", process::tree_pss(daemon.pid()) as f64 / 1e6, "MB")
}
