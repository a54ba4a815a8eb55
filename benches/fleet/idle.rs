//! What an idle node weighs that is connected to all that a fleet has: the daemon's own memory, in each role.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::harness::process;
use super::harness::rows::Rows;

/// Allocators and start-up work come to rest.
const SETTLE: Duration = Duration::from_secs(4);

pub fn measure(runtime: &Runtime, rows: &Rows) -> io::Result<()> {
    let mut cluster = runtime.block_on(
        super::fleet(1, 1)
            .set("POOL__PREWARMED_PYTHON", 0)
            .set("POOL__PREWARMED_NODEJS", 0)
            .set("POOL__PREWARMED_NATIVE", 0)
            .start(),
    );
    runtime.block_on(cluster.add_node("both", "both"));
    std::thread::sleep(SETTLE);
    for (name, case) in [
        ("both", "idle with AWS and Redis clients"),
        ("controller-0", "idle controller of a fleet"),
        ("worker-0", "idle worker of a fleet"),
    ] {
        let pid = cluster.node(name).pid();
        rows.add(&format!("{case}: daemon RSS"), process::rss(pid) as f64 / 1e6, "MB")?;
        rows.add(&format!("{case}: platform PSS"), process::tree_pss(pid) as f64 / 1e6, "MB")?;
    }
    Ok(())
}
