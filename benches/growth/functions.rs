//! Many functions with one call each, and then again, with the default configuration: the first calls start a sandbox each, the
//! second ones find it where the pool had room to keep it.

use std::io;

use super::scene::{Scene, Weight, call_each, deploy_many};

pub fn measure(scene: &Scene) -> io::Result<()> {
    let count = scene.options.functions;
    let case = format!("{count} functions called");
    if !scene.wants(&case) {
        return Ok(());
    }
    let daemon = scene.daemon(&[])?;
    let mut control = daemon.control()?;
    let before = Weight::of(&daemon);
    let took = deploy_many(&daemon, count)?;
    scene.tell(&case, "deployed", count as f64 / took.as_secs_f64(), "/s")?;
    for pass in ["first", "second"] {
        let tally = call_each(&daemon, &mut control, count)?;
        let case = format!("{case}, {pass} call");
        scene.tell_latency(&case, &tally)?;
        scene.tell(&case, "warm", tally.warm as f64 * 100.0 / (tally.completed as f64).max(1.0), "%")?;
    }
    scene.tell_growth(&case, before, Weight::of(&daemon))
}
