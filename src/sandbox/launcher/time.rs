//! A sandbox's own clocks: monotonic and boot time begin when it does, so that neither tells how long the host has been up.

use std::fs;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::time::{ClockId, clock_gettime};

use super::template::{Step, StepError};

/// CLONE_NEWTIME of <linux/sched.h> (Linux 5.6), which nix lacks.
pub const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Whether this kernel has time namespaces.
pub fn is_offered() -> bool {
    Path::new("/proc/self/ns/time").exists()
}

/// Sets the clocks that children of the caller see, which has just made a time namespace for them (time_namespaces(7)).
///
/// Only before the first child, and while the host's /proc is in sight.
pub fn start_clocks() -> Result<(), StepError> {
    let seconds = |clock| clock_gettime(clock).map(|now| now.tv_sec()).step("read a clock");
    let (monotonic, boot) = (seconds(ClockId::CLOCK_MONOTONIC)?, seconds(ClockId::CLOCK_BOOTTIME)?);
    // Whole seconds: a clock may not come to stand before zero.
    fs::write("/proc/self/timens_offsets", format!("monotonic -{monotonic} 0\nboottime -{boot} 0\n"))
        .step("start the sandbox's clocks")
}

/// Enters the time namespace that [`start_clocks`] made for children, so that it can be joined through this process, by its pidfd.
pub fn enter() -> Result<(), StepError> {
    let namespace = fs::File::open("/proc/self/ns/time_for_children").step("open the time namespace")?;
    nix::sched::setns(namespace, NEW_TIME).step("enter the time namespace")
}
