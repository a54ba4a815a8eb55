//! Many connections: open and silent, after a call each, and closed again.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::harness::control::{Control, run_request};
use super::harness::process;
use super::scene::{SETTLE, Scene, Weight, echo};

/// Longer than the daemon's threads need to take all of them.
const TAKEN: Duration = Duration::from_millis(500);

pub fn measure(scene: &Scene) -> io::Result<()> {
    let count = scene.options.connections;
    let case = format!("{count} connections");
    if !scene.wants(&case) {
        return Ok(());
    }
    let daemon = scene.daemon(&[])?;
    daemon.control()?.deploy(&echo("echo"))?;
    let request = run_request(&daemon.key, "echo", "");
    daemon.control()?.verdict(&request)?;
    let before = Weight::of(&daemon);
    let begun = Instant::now();
    let silent: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(daemon.address)).collect::<io::Result<_>>()?;
    scene.tell(&case, "opened", count as f64 / begun.elapsed().as_secs_f64(), "/s")?;
    std::thread::sleep(TAKEN);
    let idle = Weight::of(&daemon);
    let each = |with: u64| (with as f64 - before.rss as f64) / 1e3 / count as f64;
    scene.tell(&case, "daemon RSS each, silent", each(idle.rss), "kB")?;
    scene.tell(
        &case,
        "descriptors each",
        (idle.descriptors - before.descriptors) as f64 / count as f64,
        "descriptors",
    )?;
    drop(silent);
    std::thread::sleep(TAKEN);
    let mut used = Vec::with_capacity(count);
    for _ in 0..count {
        let mut control = Control::connect(daemon.address, &daemon.key)?;
        control.verdict(&request)?;
        used.push(control);
    }
    scene.tell(&case, "daemon RSS each, after a call", each(process::rss(daemon.pid())), "kB")?;
    drop(used);
    std::thread::sleep(SETTLE);
    scene.tell(
        &case,
        "daemon RSS more when closed",
        (process::rss(daemon.pid()) as f64 - before.rss as f64) / 1e6,
        "MB",
    )
}
