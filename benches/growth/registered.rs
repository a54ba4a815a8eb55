//! Many functions registered and never called: what registering, listing and calling one of them takes.

use std::io;
use std::time::Duration;

use super::harness::control::run_request;
use super::harness::daemon::Daemon;
use super::harness::process;
use super::scene::{SETTLE, Scene, Weight, deploy_many, median_ms, name, timed};

const LOOKS: usize = 100;

pub fn measure(scene: &Scene) -> io::Result<()> {
    let count = scene.options.registered;
    let case = format!("{count} functions registered");
    if !scene.wants(&case) {
        return Ok(());
    }
    // The bench's own other functions are none, but one owner may not have more than the default.
    let room = (count + 1).to_string();
    let settings = [("LIMITS__FUNCTIONS_PER_OWNER", room.as_str())];
    let daemon = scene.daemon(&settings)?;
    let before = Weight::of(&daemon);
    let took = deploy_many(&daemon, count)?;
    std::thread::sleep(SETTLE);
    scene.tell(&case, "registered", count as f64 / took.as_secs_f64(), "/s")?;
    scene.tell_growth(&case, before, Weight::of(&daemon))?;
    looks(scene, &case, &daemon, count)?;
    let home = daemon.home();
    drop(daemon);
    let begun = std::time::Instant::now();
    let daemon = Daemon::start_in(home, &scene.options.executable, &settings)?;
    scene.tell(&case, "start with them", begun.elapsed().as_secs_f64() * 1000.0, "ms")?;
    std::thread::sleep(SETTLE);
    scene.tell(&case, "daemon RSS after a restart", process::rss(daemon.pid()) as f64 / 1e6, "MB")
}

fn looks(scene: &Scene, case: &str, daemon: &Daemon, count: usize) -> io::Result<()> {
    let mut control = daemon.control()?;
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let (took, page) = timed(&mut control, "GET", &format!("/functions?limit=100{cursor}"))?;
        pages.push(took);
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    scene.tell(case, "list of them all", pages.iter().sum::<Duration>().as_secs_f64() * 1000.0, "ms")?;
    scene.tell(case, "page of 100", median_ms(pages), "ms")?;
    let spread = (0..LOOKS).map(|nth| nth * count / LOOKS);
    let ones = spread.map(|nth| Ok(timed(&mut control, "GET", &format!("/functions/{}", name(nth)))?.0));
    scene.tell(case, "one of them", median_ms(ones.collect::<io::Result<_>>()?), "ms")?;
    let begun = std::time::Instant::now();
    control.verdict(&run_request(&daemon.key, &name(count / 2), ""))?;
    scene.tell(case, "first call of one", begun.elapsed().as_secs_f64() * 1000.0, "ms")
}
