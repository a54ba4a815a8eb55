//! Many idle, frozen Python sandboxes: how much of the machine each takes, and what they cost while nothing happens.

use std::io;
use std::time::Duration;

use super::harness::process;
use super::scene::{Scene, Weight, call_each, deploy_many};

/// Ten times `pool.freeze_after_ms`.
const FROZEN: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(3);

pub fn measure(scene: &Scene) -> io::Result<()> {
    let count = scene.options.sandboxes;
    // Named without their number: the goal is per GiB.
    let case = "idle sandboxes, python";
    if !scene.wants(case) {
        return Ok(());
    }
    // Room for all of them, of which one owner gets seven eighths; what is promised to them is far more than they take.
    let room = (count * 5 / 4 + 16).to_string();
    let promised = (256 * count).to_string();
    let settings = [
        ("POOL__SANDBOXES_MAX", room.as_str()),
        ("POOL__MEMORY_BUDGET_MB", &promised),
        ("LIMITS__MEMORY_MB_PER_OWNER", &promised),
        ("POOL__PREWARMED_NODEJS", "0"),
        ("POOL__PREWARMED_NATIVE", "0"),
    ];
    let daemon = scene.daemon(&settings)?;
    let mut control = daemon.control()?;
    deploy_many(&daemon, count)?;
    let before = Weight::of(&daemon);
    let first = call_each(&daemon, &mut control, count)?;
    std::thread::sleep(FROZEN);
    let after = Weight::of(&daemon);
    let each = before.available.saturating_sub(after.available) as f64 / count as f64;
    scene.tell(case, "made", count as f64, "sandboxes")?;
    scene.tell(case, "of the machine's memory, each", each / 1e6, "MB")?;
    scene.tell(case, "per GiB", f64::from(1 << 30) / each.max(1.0), "sandboxes")?;
    scene.tell(case, "PSS each", (after.tree_pss - before.tree_pss) as f64 / 1e6 / count as f64, "MB")?;
    scene.tell(case, "daemon RSS each", (after.rss as f64 - before.rss as f64) / 1e3 / count as f64, "kB")?;
    scene.tell_growth(case, before, after)?;
    scene.tell_latency(&format!("{case}, first call"), &first)?;
    let spent = process::tree_cpu(daemon.pid());
    std::thread::sleep(QUIET);
    let spent = process::tree_cpu(daemon.pid()).saturating_sub(spent);
    scene.tell(case, "processor while idle", spent.as_secs_f64() * 100.0 / QUIET.as_secs_f64(), "%")?;
    let again = call_each(&daemon, &mut control, count)?;
    scene.tell(case, "still there", again.warm as f64 * 100.0 / count as f64, "%")?;
    scene.tell_latency(&format!("{case}, thawed for a call"), &again)
}
